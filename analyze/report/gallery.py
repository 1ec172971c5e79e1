"""The maps of one game on the page: pictures of one dot per pixel that the browser enlarges."""

import io
import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image  # comes with matplotlib

from analyze.report.figure_files import PNG_DPI, Panel, panel_bytes
from analyze.report.figures import channels_of, kind_title, map_at, summed
from analyze.report.names import PolicyName, StatesName, metric_name
from nrmap.maps.episode_maps import TotalMaps
from nrmap.maps.heatmaps import map_limits
from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import sparsity
from nrmap.maps.sweep import FloatArray

_LEVELS = 256
_MEDIA = {"svg": "image/svg+xml", "png": "image/png"}


@dataclass(frozen=True)
class MapSet:
    """The maps of one policy on one set of states, and the file of these states."""

    name: PolicyName
    states: StatesName
    total: TotalMaps
    states_path: Path


@dataclass(frozen=True)
class Picture:
    """A picture inside the page: its data URI, and its description for readers who do not see it."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Card:
    """One map with its colour bar from `low` to `high`, the policy's label and the sparsity."""

    picture: Picture
    colours: str
    low: str
    high: str
    label: str
    value: str


@dataclass(frozen=True)
class Gallery:
    """Rows of cells under column titles. A cell has a card for each map, none where nothing was measured."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sequence[Card]]]]


@dataclass(frozen=True)
class MapGroup:
    """Galleries under one title, some groups folded, with further groups inside."""

    title: str
    galleries: Sequence[Gallery]
    folded: bool = False
    about: str = ""
    inner: Sequence["MapGroup"] = ()


def map_groups(sets: Sequence[MapSet], headline: float | None) -> list[MapGroup]:
    """All galleries of one game: figures 1 and 2 and the other kinds first, null networks last.

    Only the first set of states at the temperature `headline` is open.
    """
    trained = [map_set for map_set in sets if not map_set.name.is_null_network]
    by_temperature = [kind.name for kind in KINDS.values() if kind.by_temperature]
    groups: list[MapGroup] = []
    for states, group in by_states(trained).items():
        others = sorted({t for map_set in group for t in map_set.total.temperatures} - {headline})
        inner = [
            MapGroup(f"T = {t:g}", [_by_method(group, kind, t) for kind in by_temperature], folded=True) for t in others
        ]
        galleries = [_by_method(group, kind, headline) for kind in KINDS]
        groups.append(MapGroup(f"{states[0].upper()}{states[1:]}", galleries, folded=bool(groups), inner=inner))
    kinds = one_of_each_kind(sets)
    if any(map_set.name.is_null_network for map_set in kinds):
        (states,) = by_states(kinds)
        about = f"One policy of every method, and one draw of every null network: {states}."
        groups.append(MapGroup("Agents beside null networks", [_by_kind(kinds, headline)], about=about))
    controls = [map_set for map_set in sets if map_set.name.is_null_network]
    for states, group in by_states(controls).items():
        galleries = [_by_method(group, kind, headline) for kind in KINDS]
        groups.append(MapGroup(f"Every draw of every null network: {states}", galleries, folded=True))
    return groups


def _by_method(sets: Sequence[MapSet], kind: str, temperature: float | None) -> Gallery:
    """The maps of one kind: a row for every seed, a column for every method."""
    methods, by_name = methods_of(sets), {map_set.name: map_set for map_set in sets}
    of_kind = KINDS[kind]
    figure = f"Figure {of_kind.paper_figure}. " if of_kind.paper_figure else ""
    title = f"{figure}{kind_title(kind, temperature)}{', white at 0' if of_kind.signed else ''}"
    rows = [
        ("", [_cards(by_name.get(method.numbered(number)), kind, temperature) for method in methods])
        for number in numbers_of(sets)
    ]
    return Gallery(title, [method.title for method in methods], rows)


def methods_of(sets: Iterable[MapSet]) -> list[PolicyName]:
    """The policies of `sets` without their seeds or draws, in order."""
    return sorted({map_set.name.group for map_set in sets}, key=lambda name: name.rank)


def numbers_of(sets: Iterable[MapSet]) -> list[int | None]:
    """The seeds, or the numbers of the draws, of the policies of `sets`, in order."""
    return sorted({map_set.name.number for map_set in sets}, key=lambda number: (number is None, number or 0))


def _by_kind(sets: Sequence[MapSet], temperature: float | None) -> Gallery:
    """Every kind of map in a row, every one of `sets` in a column."""
    rows = []
    for kind in KINDS:
        maps = [map_at(map_set.total, kind, temperature) for map_set in sets]
        cells = [
            [] if map_ is None else [_card(map_set, summed(map_), kind)]
            for map_set, map_ in zip(sets, maps, strict=True)
        ]
        rows.append((kind_title(kind, temperature), cells))
    titles = [
        map_set.name.method.replace("_", " ") if map_set.name.is_null_network else map_set.name.title
        for map_set in sets
    ]
    return Gallery("", titles, rows)


def one_of_each_kind(sets: Iterable[MapSet]) -> list[MapSet]:
    """A policy of every method, its first seed, and one draw of every null network, all on the same states.

    Takes the states with most methods; of equals a pool rather than own states. Empty if there is only one method.
    """
    groups: dict[tuple[StatesName, int], dict[str, MapSet]] = {}
    for map_set in sorted(
        sets, key=lambda map_set: (map_set.name.number is None, map_set.name.number or 0, map_set.name.rank)
    ):
        groups.setdefault((map_set.states, map_set.total.num_states), {}).setdefault(map_set.name.method, map_set)
    found = [(len(group), states.states_from != "own", n, group) for (states, n), group in groups.items()]
    best = max(found, key=lambda candidate: candidate[:3], default=(0, False, 0, {}))[-1]
    return sorted(best.values(), key=lambda map_set: map_set.name.rank) if len(best) > 1 else []


def _cards(map_set: MapSet | None, kind: str, temperature: float | None) -> list[Card]:
    map_ = None if map_set is None else map_at(map_set.total, kind, temperature)
    return [] if map_set is None or map_ is None else [_card(map_set, each, kind) for each in channels_of(map_)]


def _card(map_set: MapSet, map_: FloatArray, kind: str) -> Card:
    label = map_set.name.label
    reason = KINDS[kind].zero_reason(map_set.total.num_states)
    measure = sparsity(map_, reason)
    digits = metric_name("sparsity", kind).digits
    value = f"S undefined: {reason}" if measure.value is None else f"S = {measure.value:.{digits}f}"
    low, high = map_limits(map_, kind)
    row, column = np.unravel_index(int(np.abs(map_).argmax()), map_.shape)
    largest = "" if measure.value is None else f", largest at row {row}, column {column}"
    alt = f"{KINDS[kind].heading} of {label} on {map_set.states.label}. {value}{largest}."
    picture = Picture(_data_uri(map_png(map_, kind), "png"), alt)
    return Card(picture, KINDS[kind].colours, end_text(low, high - low), end_text(high, high - low), label, value)


def end_text(value: float, span: float) -> str:
    """`value` at an end of a colour bar, with enough digits to differ from the other end, `span` away."""
    if value == 0 or span == 0:
        return f"{value:.3g}"
    return f"{value:.{max(3, math.ceil(math.log10(abs(value) / span)) + 3)}g}"


def map_png(map_: FloatArray, kind: str) -> bytes:
    """A map [H, W] as a PNG of H × W dots in the 256 colours of its heat map."""
    low, high = map_limits(map_, kind)
    scaled = (map_ - low) / (high - low) if high > low else np.zeros_like(map_)
    levels = np.minimum((scaled * _LEVELS).astype(np.int64), _LEVELS - 1).astype(np.uint8)
    picture = Image.fromarray(levels)
    picture.putpalette(_colours(KINDS[kind].colours).tobytes())
    content = io.BytesIO()
    picture.save(content, format="png", optimize=True)
    return content.getvalue()


def picture_of(panel: Panel, size: tuple[float, float], kind: str, dpi: int = PNG_DPI) -> Picture:
    """A panel of `size` inches as an "svg" or "png" picture."""
    return Picture(_data_uri(panel_bytes(panel, size, kind, dpi), kind), panel.alt)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{_MEDIA[kind]};base64,{b64encode(content).decode()}"


def by_states(sets: Iterable[MapSet]) -> Mapping[str, list[MapSet]]:
    """The sets by their states and N, own states first."""
    groups: dict[tuple[StatesName, int], list[MapSet]] = {}
    for map_set in sorted(sets, key=lambda map_set: (map_set.states.rank, map_set.total.num_states)):
        groups.setdefault((map_set.states, map_set.total.num_states), []).append(map_set)
    return {f"{states.label}, N = {num_states}": group for (states, num_states), group in groups.items()}


def colour_bars() -> dict[str, str]:
    """The CSS colour stops of every colour map in use, from the smallest value to the largest."""
    return {
        name: ", ".join(f"rgb({red}, {green}, {blue})" for red, green, blue in _colours(name)[::17].tolist())
        for name in dict.fromkeys(style.colours for style in KINDS.values())
    }


def _colours(name: str) -> np.ndarray:
    colours = mpl.colormaps[name](np.linspace(0, 1, _LEVELS))[:, :3]
    return (255 * colours).round().astype(np.uint8)
