"""Figures of maps: those of one policy, and those of several side by side (figures 1 and 2 of the paper)."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyze.heatmaps import KINDS, draw_map, draw_overlay
from analyze.names import metric_name, policy_label
from analyze.sheets import Panel, Sheet, save_sheet
from nrmap.episode_maps import EpisodeMaps, TotalMaps
from nrmap.policy import Policy
from nrmap.rollout import replay_rgb
from nrmap.sparsity import MapKind, sparsity
from nrmap.states import RolloutStates

FloatArray = NDArray[np.float64]
OVERLAID: tuple[MapKind, ...] = ("kmap", "kl")
_MAP_SIZE, _OVERLAY_SIZE = (3.3, 2.9), (2.4, 3.2)


def map_figures(maps: EpisodeMaps, *, policy: Policy, states: RolloutStates, folder: Path) -> dict[str, Path]:
    """Draw the maps of one policy into `folder`, as PDF and PNG; the PNG files by what they show.

    "heatmaps" has a panel for every kind of map and temperature, "overlay" KMAP and the KL map
    over the game's own screen in colour, at one of the states they were computed on.
    """
    name = f"{policy.env.game}, {policy_label(policy.card.method, policy.card.seed)}"
    total = maps.total()
    heatmaps = tuple(
        map_panel(name, map_, kind, temperature)
        for kind in KINDS
        for temperature, each in maps_of_kind(total, kind)
        for map_ in channels_of(each)
    )
    sheets = (
        Sheet("heatmaps", name, heatmaps, 2, _MAP_SIZE),
        overlay_sheet("overlay", name, {name: (screen_of(states), total)}),
    )
    return {sheet.name: save_sheet(sheet, folder) for sheet in sheets}


def comparison_sheet(
    name: str,
    caption: str,
    maps: Mapping[str, TotalMaps],
    kind: MapKind,
    temperature: float | None,
    *,
    columns: int,
) -> Sheet:
    """Maps of one kind side by side, each policy by its label; `temperature` chooses among those of HMAP and KL."""
    panels = [
        map_panel(label, map_, kind, at)
        for label, total in maps.items()
        for at, each in maps_of_kind(total, kind)
        if at is None or at == temperature
        for map_ in channels_of(each)
    ]
    return Sheet(name, caption, tuple(panels), columns * max(len(panels) // len(maps), 1), _MAP_SIZE)


def kinds_sheet(name: str, caption: str, maps: Mapping[str, TotalMaps], temperature: float | None) -> Sheet:
    """Every kind of map in a row, every policy in a column by its label; HMAP and KL at `temperature`."""
    panels = [
        map_panel(label, summed(map_), kind, at)
        for kind in KINDS
        for label, total in maps.items()
        for at, map_ in maps_of_kind(total, kind)
        if at is None or at == temperature
    ]
    return Sheet(name, caption, tuple(panels), len(maps), _MAP_SIZE)


def overlay_sheet(name: str, caption: str, shown: Mapping[str, tuple[NDArray[np.uint8], TotalMaps]]) -> Sheet:
    """KMAP and the KL map over a screen of the game, for every label its screen and its maps."""
    panels = []
    for kind in OVERLAID:
        for label, (screen, total) in shown.items():
            _, map_ = maps_of_kind(total, kind)[0]
            title = f"{KINDS[kind].title}\n{label}"
            draw = partial(draw_overlay, screen=screen, map_=summed(map_), kind=kind, title=title)
            panels.append(Panel(draw, f"{KINDS[kind].title} of {label} laid over a screen of the game."))
    return Sheet(name, caption, tuple(panels), len(shown), _OVERLAY_SIZE)


def map_panel(label: str, map_: FloatArray, kind: MapKind, temperature: float | None) -> Panel:
    """One heat map with its name, temperature and sparsity in the title."""
    measure, digits = sparsity(map_), metric_name(f"{kind}_sparsity").digits
    at = "" if temperature is None else f", T = {temperature:g}"
    value = "S undefined" if measure.value is None else f"S = {measure.value:.{digits}f}"
    title = f"{label}\n{KINDS[kind].title}{at}, {value}"
    row, column = np.unravel_index(int(np.abs(map_).argmax()), map_.shape)
    alt = (
        f"{KINDS[kind].title}{at} of {label}, {value}: from {map_.min():.4g} to {map_.max():.4g}, "
        f"largest at row {row}, column {column} of {map_.shape[0]} × {map_.shape[1]}."
    )
    return Panel(partial(draw_map, map_=map_, kind=kind, title=title), alt)


def maps_of_kind(total: TotalMaps, kind: MapKind) -> list[tuple[float | None, FloatArray]]:
    """The maps of one kind, each with its temperature, None where it has none."""
    if kind in ("hmap", "kl"):
        return list(zip(total.temperatures, getattr(total, kind), strict=True))
    return [(None, getattr(total, kind))]


def channels_of(map_: FloatArray) -> Iterator[FloatArray]:
    """The maps [H, W] in a map [H, W] or, where every frame of a stack was ablated apart, [C, H, W]."""
    yield from map_.reshape(-1, *map_.shape[-2:])


def summed(map_: FloatArray) -> FloatArray:
    """One map [H, W]: a map itself, or the sum over the frames of a stack that were ablated apart."""
    total: FloatArray = map_.reshape(-1, *map_.shape[-2:]).sum(axis=0)
    return total


def screen_of(states: RolloutStates) -> NDArray[np.uint8]:
    """The game's colour screen [h, w, 3] at the middle one of the states of the first episode."""
    of_first = np.flatnonzero(states.episode_ids == states.episode_ids[0])
    middle = int(states.positions[of_first[len(of_first) // 2]])
    episode = states.episodes[int(states.episode_ids[0])]
    return replay_rgb(states.env, episode.seed, episode.actions, [middle])[0]
