"""Sheets of maps: figures 1 and 2 of the paper, the other kinds, null networks, and maps over the game's screen."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyze.report.load import readable, readable_maps
from analyze.report.names import PolicyName, StatesName, grouped, metric_name, name_of, states_of
from analyze.report.results import Part
from analyze.report.sheets import Panel, Sheet, save_figure, save_sheet
from analyze.report.tables import headline_temperature
from nrmap.maps.episode_maps import EpisodeMaps, TotalMaps
from nrmap.maps.heatmaps import draw_map, draw_overlay, map_figures
from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import sparsity
from nrmap.play.given_states import GivenStates, read_states
from nrmap.play.rollout import replay_rgb
from nrmap.play.states import RolloutStates
from nrmap.policies.agent import Agent
from nrmap.support.errors import named
from nrmap.support.schema import LONGEST_NAME

FloatArray = NDArray[np.float64]
OVERLAID = ("kmap", "kl")
_MAP_SIZE, _OVERLAY_SIZE = (3.3, 2.9), (2.4, 3.2)


@dataclass(frozen=True)
class MapSet:
    """The maps of one policy on one set of states, and the file of these states."""

    name: PolicyName
    states: StatesName
    total: TotalMaps
    states_path: Path


def save_map_figures(
    maps: EpisodeMaps, *, policy: Agent, states: RolloutStates | GivenStates, folder: Path
) -> dict[str, Path]:
    """Draw the maps of one policy into `folder`, as PDF and PNG; return the paths of the PNG files by name.

    "heatmaps" has a column for each kind of map and temperature, and a row for each channel if the channels were
    ablated apart; columns beyond 12 are in "heatmaps-2" and so on. "overlay" has KMAP and the KL map, at the
    temperature nearest to 1, over a screen of the game; there is none for states without a game. Raises NrmapError as
    `screen_of` does, and for a file that cannot be written.
    """
    name = f"{policy.game}, {PolicyName(policy.method, seed=policy.seed).label}"
    total = maps.total()
    figures = {}
    for number, heatmaps in enumerate(map_figures(total), start=1):
        heatmaps.suptitle(name)
        file = "heatmaps" if number == 1 else f"heatmaps-{number}"
        figures[file] = save_figure(heatmaps, folder / f"{file}.png")
    if isinstance(states, RolloutStates):
        nearest_to_1 = min(total.temperatures, key=lambda temperature: abs(math.log(temperature)))
        overlay = overlay_sheet("overlay", name, {name: (screen_of(states), total)}, nearest_to_1)
        figures["overlay"] = save_sheet(overlay, folder)
    return figures


def map_sets(part: Part, outputs: Path) -> tuple[list[MapSet], list[str]]:
    """Load the maps of every policy and null network of `part`; also return an error for every unreadable file.

    Of several analyses of a policy on the same states the one with the most temperatures is taken.
    """
    sets: dict[tuple[PolicyName, StatesName], MapSet] = {}
    problems: list[str] = []
    for result in part.results:
        maps = readable_maps(result, outputs, problems)
        if maps is None:
            continue
        name, total = name_of(result.first), maps.total()
        states = replace(states_of(result.first), num_states=total.num_states)
        there = sets.get((name, states))
        if there is None or len(total.temperatures) > len(there.total.temperatures):
            sets[name, states] = MapSet(name, states, total, result.states_path(outputs))
    return list(sets.values()), problems


def map_sheets(part: Part, sets: Sequence[MapSet]) -> list[Sheet]:
    """Make a sheet for each kind of map, set of states and T (a row for each seed, a column for each method).

    A last sheet compares all kinds of maps of the sets that `one_of_each_kind` chooses, if any. Unfolded are that sheet
    and, on the first states at `headline_temperature`, the paper's kinds, or all kinds if there is no last sheet.
    """
    headline = headline_temperature(part.records)
    sheets, chosen = [], one_of_each_kind(sets)
    states_sets = grouped((found for found in sets if not found.name.is_null_network), lambda found: found.states)
    for number, (states, here) in enumerate(states_sets.items()):
        there = {found.name: found.total for found in here}
        methods = sorted({name.group for name in there})
        names = [replace(method, seed=seed) for seed in _seeds(here) for method in methods]
        slug = re.sub(r"[^\w.-]+", "-", states.title.replace("N = ", ""))[:LONGEST_NAME]
        others = sorted({t for total in there.values() for t in total.temperatures} - {headline})
        for kind in KINDS.values():
            figure = f"figure{kind.paper_figure}" if kind.paper_figure else kind.name.replace("_", "-")
            heading = f"Figure {kind.paper_figure}. " if kind.paper_figure else ""
            for temperature in (headline, *(others if kind.by_temperature else ())):
                at = "" if temperature == headline else f"-T{temperature:g}"
                file = f"{figure}-{part.name}-{slug}{at}"
                title = f"{heading}{kind_title(kind.name, temperature)}: {part.game}, {states.title}"
                panels = tuple(map_panel(name.label, there.get(name), kind.name, temperature) for name in names)
                folded = number > 0 or temperature != headline or (bool(chosen) and not kind.paper_figure)
                sheets.append(Sheet(file, title, kind.meaning, panels, len(methods), _MAP_SIZE, folded=folded))
    if chosen:
        beside = " and of null networks" if any(found.name.is_null_network for found in chosen) else ""
        title = f"All kinds of maps of trained agents{beside}: {part.game}, {chosen[0].states.title}"
        kinds = [kind for kind in KINDS if any(map_at(found.total, kind, headline) is not None for found in chosen)]
        panels = tuple(map_panel(found.name.label, found.total, kind, headline) for kind in kinds for found in chosen)
        sheets.append(Sheet(f"kinds-{part.name}", title, "One agent of each method.", panels, len(chosen), _MAP_SIZE))
    return [sheet for sheet in sheets if any(sheet.panels)]


def _seeds(sets: Iterable[MapSet]) -> list[int | None]:
    return sorted({found.name.seed for found in sets}, key=lambda seed: (seed is None, seed or 0))


def overlay_sheets(part: Part, sets: Sequence[MapSet], outputs: Path) -> tuple[list[Sheet], list[str]]:
    """Return two lists: at most one sheet, and the errors of states files in `outputs` that cannot be read.

    The sheet shows maps of the first seed's policies over a screen. They are those on own states, or on any states if
    no policy has these.
    """
    trained = [found for found in sets if not found.name.is_null_network]
    own = [found for found in trained if found.states.states_from == "own"] or trained
    shown: dict[str, tuple[NDArray[np.uint8], TotalMaps]] = {}
    problems: list[str] = []
    for found in sorted(own, key=lambda found: found.name):
        if found.name.seed == _seeds(own)[0]:
            screen = readable(_screen_in, found.states_path, outputs, problems)
            if screen is not None:
                shown[found.name.label] = screen, found.total
    title = f"Maps over a screen of {part.game}, from the middle of the first episode"
    temperature = headline_temperature(part.records)
    return [overlay_sheet(f"overlay-{part.name}", title, shown, temperature)] if shown else [], problems


def one_of_each_kind(sets: Iterable[MapSet]) -> list[MapSet]:
    """Choose one `MapSet` of each `method` on the same states: the first seed, or a null network's first draw.

    Variants of a method count as one, as do shuffled weights of different policies. Takes the states with most methods,
    null networks included; if tied, a pool rather than own states. [] if there is only one method.
    """
    groups: dict[StatesName, dict[str, MapSet]] = {}
    for found in sorted(sets, key=lambda found: (found.name.seed or 0, found.name.draw or 0, found.name.rank)):
        groups.setdefault(found.states, {}).setdefault(found.name.method, found)
    ranks = {(len(chosen), states.states_from != "own", states.rank): chosen for states, chosen in groups.items()}
    best = ranks[max(ranks)] if ranks else {}
    return sorted(best.values(), key=lambda found: found.name) if len(best) > 1 else []


def overlay_sheet(
    name: str, title: str, shown: Mapping[str, tuple[NDArray[np.uint8], TotalMaps]], temperature: float | None
) -> Sheet:
    """Make a sheet of KMAP and the KL map over a screen of the game.

    `shown` has, for the label of each policy, the screen, uint8 [h, w, 3], and the maps.
    """
    panels: list[Panel | None] = []
    for kind in OVERLAID:
        heading = kind_title(kind, temperature)
        for label, (screen, total) in shown.items():
            map_ = map_at(total, kind, temperature)
            if map_ is None:
                panels.append(None)
                continue
            draw = partial(draw_overlay, screen=screen, map_=_summed(map_), kind=kind, title=f"{heading}\n{label}")
            panels.append(Panel(draw, f"{heading} of {label} laid over a screen of the game."))
    return Sheet(name, title, "", tuple(panels), len(shown), _OVERLAY_SIZE, format="png")


def map_panel(label: str, total: TotalMaps | None, kind: str, temperature: float | None) -> Panel | None:
    """Make the panel of one heat map, titled with policy, kind, T and sparsity; None if there is no such map."""
    if total is None or (map_ := map_at(total, kind, temperature)) is None:
        return None
    name, size, shown = kind_title(kind, temperature), sparsity(map_).value, _summed(map_)
    value = "S undefined" if size is None else f"S = {size:.{metric_name('sparsity', kind).digits}f}"
    short = name.replace(f"  {KINDS[kind].symbol}(i, j)", "")  # the panel is narrow
    row, column = np.unravel_index(int(np.abs(shown).argmax()), shown.shape)
    alt = f"{name} of {label}, {value}: from {shown.min():.4g} to {shown.max():.4g}, largest at "
    alt += f"row {row}, column {column}." if size is not None else "no pixel."
    return Panel(partial(draw_map, map_=shown, kind=kind, title=f"{label}\n{short}, {value}"), alt)


def kind_title(kind: str, temperature: float | None) -> str:
    """Title a kind of map, with the temperature if it depends on T: `KMAP  K(i, j)`, `KL map  KL(i, j), T = 1`."""
    at = f", T = {temperature:g}" if KINDS[kind].by_temperature and temperature is not None else ""
    return f"{KINDS[kind].heading}{at}"


def map_at(total: TotalMaps, kind: str, temperature: float | None) -> FloatArray | None:
    """Find the map of one kind, [(C,) H, W], at `temperature` if it depends on T; None if missing."""
    return next((map_ for each, at, map_ in total.each() if each.name == kind and at in (None, temperature)), None)


def _summed(map_: FloatArray) -> FloatArray:
    """Sum a map over its channels, if they were ablated apart, to [H, W]."""
    total: FloatArray = map_.reshape(-1, *map_.shape[-2:]).sum(axis=0)
    return total


def _screen_in(path: Path) -> NDArray[np.uint8] | None:
    states = read_states(path)
    with named(f"{path}: "):
        return None if isinstance(states, GivenStates) else screen_of(states)


def screen_of(states: RolloutStates) -> NDArray[np.uint8]:
    """Replay the first episode to its middle sampled state; return the colour screen there, uint8 [h, w, 3].

    Raises NrmapError as `replay_rgb` does.
    """
    of_first = np.flatnonzero(states.episode_ids == states.episode_ids[0])
    middle = int(states.positions[of_first[len(of_first) // 2]])
    episode = states.episodes[int(states.episode_ids[0])]
    return replay_rgb(states.env, episode.seed, episode.actions, [middle])[0]
