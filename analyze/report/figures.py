"""Figures of maps: those of one policy, and those of several side by side (figures 1 and 2 of the paper)."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyze.report.figure_files import Panel, Sheet, save_sheet
from analyze.report.names import PolicyName, metric_name
from nrmap.maps.episode_maps import EpisodeMaps, TotalMaps
from nrmap.maps.heatmaps import draw_map, draw_overlay
from nrmap.maps.kinds import KINDS
from nrmap.maps.sparsity import sparsity
from nrmap.play.given_states import GivenStates
from nrmap.play.rollout import replay_rgb
from nrmap.play.states import RolloutStates
from nrmap.policies.agent import Agent

FloatArray = NDArray[np.float64]
OVERLAID = ("kmap", "kl")
_MAP_SIZE, _OVERLAY_SIZE = (3.3, 2.9), (2.4, 3.2)


def map_figures(
    maps: EpisodeMaps, *, policy: Agent, states: RolloutStates | GivenStates, folder: Path
) -> dict[str, Path]:
    """Draw the maps of one policy into `folder`, as PDF and PNG; returns the PNG files by name.

    "heatmaps" has a panel for every kind of map and temperature. "overlay" has KMAP and the KL map,
    at the temperature nearest to 1, over the game's screen at one of their states;
    states from a file without a game have no screen.
    """
    name = f"{policy.game}, {PolicyName(policy.method, seed=policy.seed).label}"
    total = maps.total()
    nearest_to_1 = min(total.temperatures, key=lambda temperature: abs(math.log(temperature)))
    heatmaps = tuple(
        map_panel(name, map_, kind.name, temperature)
        for kind, temperature, each in total.each()
        for map_ in channels_of(each)
    )
    sheets = [Sheet("heatmaps", name, heatmaps, 2, _MAP_SIZE)]
    if isinstance(states, RolloutStates):
        sheets.append(overlay_sheet("overlay", name, {name: (screen_of(states), total)}, nearest_to_1))
    return {sheet.name: save_sheet(sheet, folder) for sheet in sheets}


def comparison_sheet(
    name: str,
    caption: str,
    maps: Mapping[str, TotalMaps | None],
    kind: str,
    temperature: float | None,
    *,
    columns: int,
) -> Sheet:
    """Maps of one kind side by side, for every policy by label, at `temperature` where the kind depends on it.

    A policy without such a map has an empty cell.
    """
    cells = []
    for label, total in maps.items():
        map_ = None if total is None else map_at(total, kind, temperature)
        maps_shown = [] if map_ is None else channels_of(map_)
        cells.append([map_panel(label, each, kind, temperature) for each in maps_shown])
    channels = max((len(cell) for cell in cells), default=0)
    panels = tuple(panel for cell in cells for panel in (*cell, *[None] * (channels - len(cell))))
    return Sheet(name, caption, panels, columns * max(channels, 1), _MAP_SIZE)


def kinds_sheet(name: str, caption: str, maps: Mapping[str, TotalMaps], temperature: float | None) -> Sheet:
    """A row for every kind of map, a column for every policy; HMAP and KL at `temperature`.

    A policy without such a map has an empty cell; a row of empty cells is left out.
    """
    panels: list[Panel | None] = []
    for kind in KINDS:
        found = {label: map_at(total, kind, temperature) for label, total in maps.items()}
        row = [
            None if map_ is None else map_panel(label, summed(map_), kind, temperature) for label, map_ in found.items()
        ]
        panels += row if any(row) else []
    return Sheet(name, caption, tuple(panels), len(maps), _MAP_SIZE)


def overlay_sheet(
    name: str,
    caption: str,
    shown: Mapping[str, tuple[NDArray[np.uint8], TotalMaps]],
    temperature: float | None,
) -> Sheet:
    """KMAP and the KL map at `temperature` over a screen of the game; `shown` has a screen and maps for every label."""
    panels: list[Panel | None] = []
    for kind in OVERLAID:
        what = kind_title(kind, temperature)
        for label, (screen, total) in shown.items():
            map_ = map_at(total, kind, temperature)
            if map_ is None:
                panels.append(None)
                continue
            draw = partial(draw_overlay, screen=screen, map_=summed(map_), kind=kind, title=f"{what}\n{label}")
            panels.append(Panel(draw, f"{what} of {label} laid over a screen of the game."))
    return Sheet(name, caption, tuple(panels), len(shown), _OVERLAY_SIZE)


def map_panel(label: str, map_: FloatArray, kind: str, temperature: float | None) -> Panel:
    """One heat map, titled with its policy, kind, temperature and sparsity."""
    measure, digits = sparsity(map_), metric_name("sparsity", kind).digits
    what = kind_title(kind, temperature)
    value = "S undefined" if measure.value is None else f"S = {measure.value:.{digits}f}"
    title = f"{label}\n{what}, {value}"
    row, column = np.unravel_index(int(np.abs(map_).argmax()), map_.shape)
    alt = (
        f"{what} of {label}, {value}: from {map_.min():.4g} to {map_.max():.4g}, "
        f"largest at row {row}, column {column} of {map_.shape[0]} × {map_.shape[1]}."
    )
    return Panel(partial(draw_map, map_=map_, kind=kind, title=title), alt)


def kind_title(kind: str, temperature: float | None) -> str:
    """`KMAP  K(i, j)`; `KL map, T = 1`: a kind of map and, where it depends on T, the temperature."""
    at = f", T = {temperature:g}" if KINDS[kind].by_temperature and temperature is not None else ""
    return f"{KINDS[kind].heading}{at}"


def map_at(total: TotalMaps, kind: str, temperature: float | None) -> FloatArray | None:
    """The map of one kind, at `temperature` if it depends on T; None if missing."""
    return next((map_ for each, at, map_ in total.each() if each.name == kind and at in (None, temperature)), None)


def channels_of(map_: FloatArray) -> Iterator[FloatArray]:
    """The maps [H, W] of a map [H, W], or of a map [C, H, W] with a channel for every frame of a stack."""
    yield from map_.reshape(-1, *map_.shape[-2:])


def summed(map_: FloatArray) -> FloatArray:
    """One map [H, W]: the map itself, or the sum over its channels."""
    total: FloatArray = map_.reshape(-1, *map_.shape[-2:]).sum(axis=0)
    return total


def screen_of(states: RolloutStates) -> NDArray[np.uint8]:
    """The game's colour screen [h, w, 3] at the middle state of the first episode."""
    of_first = np.flatnonzero(states.episode_ids == states.episode_ids[0])
    middle = int(states.positions[of_first[len(of_first) // 2]])
    episode = states.episodes[int(states.episode_ids[0])]
    return replay_rgb(states.env, episode.seed, episode.actions, [middle])[0]
