"""Every map as a picture of one dot a pixel that the browser enlarges: crisp, and small enough for hundreds."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image  # comes with matplotlib

from analyze.report.figures import channels_of, kind_title, map_at, summed
from analyze.report.html import image
from analyze.report.names import (
    base_method,
    is_control,
    method_label,
    method_rank,
    metric_name,
    policy_label,
    states_label,
)
from nrmap.maps.episode_maps import TotalMaps
from nrmap.maps.heatmaps import KINDS, map_limits
from nrmap.maps.sparsity import MapKind, sparsity, zero_reason
from nrmap.maps.sweep import FloatArray

_LEVELS = 256
NOT_MEASURED = '<div class="none">not measured</div>'


@dataclass(frozen=True)
class MapSet:
    """The maps of one policy on one set of states, and the file of these states."""

    method: str
    seed: int | None
    states: str
    total: TotalMaps
    states_path: Path


def gallery(sets: Sequence[MapSet], kind: MapKind, temperature: float | None) -> str:
    """The maps of one kind: a row for every seed, a column for every method."""
    methods = sorted({one.method for one in sets}, key=method_rank)
    by_place = {(one.method, one.seed): one for one in sets}
    cells = [f'<div class="method">{escape(method_label(method))}</div>' for method in methods]
    for seed in sorted({one.seed for one in sets}, key=lambda seed: (seed is None, seed)):
        for method in methods:
            found = by_place.get((method, seed))
            cells.append(NOT_MEASURED if found is None else _cards(found, kind, temperature))
    width = f'style="--methods: {len(methods)}"'
    return f'<div class="scroll"><div class="gallery" {width}>\n' + "\n".join(cells) + "\n</div></div>"


def one_of_each_kind(sets: Iterable[MapSet]) -> list[MapSet]:
    """A policy of every method, its first seed, and one draw of every control, all on the same kind of states.

    Of several sets of states the one with most methods is taken, and a pool, which is the same
    states for all, before each policy's own. Nothing where it has only one method.
    """
    groups: dict[tuple[str, int], dict[str, MapSet]] = {}
    for one in sorted(sets, key=lambda one: (one.seed is None, one.seed or 0, method_rank(one.method))):
        groups.setdefault((one.states, one.total.num_states), {}).setdefault(base_method(one.method), one)
    best = max(groups.items(), key=lambda item: (len(item[1]), item[0][0] != "own", item[0][1]), default=(None, {}))[1]
    return sorted(best.values(), key=lambda one: method_rank(one.method)) if len(best) > 1 else []


def kinds_gallery(sets: Sequence[MapSet], temperature: float | None) -> str:
    """Every kind of map in a row, every one of `sets` in a column."""
    cells = [f'<div class="method">{escape(_column_title(one))}</div>' for one in sets]
    for kind in KINDS:
        cells.append(f'<div class="kind">{escape(kind_title(kind, temperature))}</div>')
        for one in sets:
            map_ = map_at(one.total, kind, temperature)
            cells.append(NOT_MEASURED if map_ is None else _card(one, summed(map_), kind))
    width = f'style="--methods: {len(sets)}"'
    return f'<div class="scroll"><div class="gallery" {width}>\n' + "\n".join(cells) + "\n</div></div>"


def _column_title(one: MapSet) -> str:
    return base_method(one.method).replace("_", " ") if is_control(one.method) else method_label(one.method)


def _cards(one: MapSet, kind: MapKind, temperature: float | None) -> str:
    map_ = map_at(one.total, kind, temperature)
    return NOT_MEASURED if map_ is None else "".join(_card(one, each, kind) for each in channels_of(map_))


def _card(one: MapSet, map_: FloatArray, kind: MapKind) -> str:
    label = policy_label(one.method, one.seed)
    reason = zero_reason(kind, one.total.num_states)
    measure = sparsity(map_, reason)
    digits = metric_name(f"{kind}_sparsity").digits
    value = f"S undefined: {reason}" if measure.value is None else f"S = {measure.value:.{digits}f}"
    low, high = map_limits(map_, kind)
    row, column = np.unravel_index(int(np.abs(map_).argmax()), map_.shape)
    largest = "" if measure.value is None else f", largest at row {row}, column {column}"
    alt = f"{KINDS[kind].title} of {label} on {states_label(one.states)}. {value}{largest}."
    return (
        f'<figure class="map">{image(map_png(map_, kind), "png", alt)}'
        f'<div class="bar {KINDS[kind].colours}"></div>'
        f'<div class="ends"><span>{end_text(low, high - low)}</span><span>{end_text(high, high - low)}</span></div>'
        f"<figcaption>{escape(label)}<br>{escape(value)}</figcaption></figure>"
    )


def end_text(value: float, span: float) -> str:
    """`value` at an end of a colour bar, with enough digits that the other end, `span` away, reads otherwise."""
    if value == 0 or span == 0:
        return f"{value:.3g}"
    return f"{value:.{max(3, math.ceil(math.log10(abs(value) / span)) + 3)}g}"


def map_png(map_: FloatArray, kind: MapKind) -> bytes:
    """A map [H, W] as a PNG of H × W dots in 256 colours, those of its heat map."""
    low, high = map_limits(map_, kind)
    scaled = (map_ - low) / (high - low) if high > low else np.zeros_like(map_)
    levels = np.minimum((scaled * _LEVELS).astype(np.int64), _LEVELS - 1).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette(_colours(KINDS[kind].colours).tobytes())
    content = io.BytesIO()
    picture.save(content, format="png", optimize=True)
    return content.getvalue()


def bar_styles() -> str:
    """CSS for the colour bars, from the smallest value on the left to the largest on the right."""
    names = dict.fromkeys(style.colours for style in KINDS.values())
    return "\n".join(f".bar.{name} {{ background: linear-gradient(to right, {_stops(name)}); }}" for name in names)


def by_states(sets: Iterable[MapSet]) -> Mapping[str, list[MapSet]]:
    """The sets by their states and N, own states first."""
    groups: dict[tuple[bool, bool, str, int], list[MapSet]] = {}
    for one in sets:
        key = (one.states != "own", one.states != "pool", one.states, one.total.num_states)
        groups.setdefault(key, []).append(one)
    return {f"{states_label(key[2])}, N = {key[3]}": groups[key] for key in sorted(groups)}


def _colours(name: str) -> np.ndarray:
    colours = mpl.colormaps[name](np.linspace(0, 1, _LEVELS))[:, :3]
    return (255 * colours).round().astype(np.uint8)


def _stops(name: str) -> str:
    return ", ".join(f"rgb({red}, {green}, {blue})" for red, green, blue in _colours(name)[::17].tolist())
