"""The maps of an agent as the public API returns them: looked up by name, measured, drawn, saved and loaded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nrmap.maps.episode_maps import EpisodeMaps, FloatArray, load_maps, save_maps
from nrmap.maps.sparsity import MAP_NAMES, MapKind, sparsity, sparsity_interval, zero_reason
from nrmap.support.errors import NrmapError, unknown_choice

if TYPE_CHECKING:  # importing nrmap needs no matplotlib
    from matplotlib.figure import Figure

BY_TEMPERATURE = ("hmap", "kl")


@dataclass(frozen=True)
class Estimate:
    """A measured value with its 95% interval. `note` says why the value or the interval is missing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str | None = None
    note: str | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.note})"
        known = self.low is not None and self.high is not None
        return f"{self.value:.2f} " + (f"[{self.low:.2f}, {self.high:.2f}]" if known else f"({self.note})")


@dataclass(frozen=True, eq=False, repr=False)
class Maps:
    """The maps of one agent, each a sum over `num_states` states.

    `maps["kmap"]` is a map, float64 [H, W], or [C, H, W] where each channel was ablated apart. Maps that
    depend on a temperature are looked up with it: `maps["hmap", 1.0]`. An unknown name or temperature raises
    NrmapError. `by_episode` holds the maps of each episode, `metadata` the agent and the settings.
    """

    by_episode: EpisodeMaps
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def num_states(self) -> int:
        """N, the number of states that each map is a sum over."""
        return self.by_episode.num_states

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures of the softmax policies, in order."""
        return self.by_episode.temperatures

    def keys(self) -> list[str | tuple[str, float]]:
        """Every map's key: a name, or a name and a temperature."""
        return [kind if temperature is None else (kind, temperature) for kind, temperature in self._each()]

    def __getitem__(self, key: str | tuple[str, float]) -> FloatArray:
        kind, temperature = key if isinstance(key, tuple) else (key, None)
        return np.asarray(self._episodes(kind, temperature).sum(axis=0))

    def sparsity(self, kind: str, temperature: float | None = None) -> Estimate:
        """S = ‖M‖₁ / ‖M‖₂ (eq. 9) of a map, from 1 for a single pixel to √(number of pixels) for a flat map.

        The 95% interval is a jackknife over episodes and needs 16 of them. Raises NrmapError for an unknown
        map.
        """
        by_episode = self._episodes(kind, temperature)
        measure = sparsity(by_episode.sum(axis=0), zero_reason(cast(MapKind, kind), self.num_states))
        interval = sparsity_interval(by_episode)
        return Estimate(measure.value, interval.low, interval.high, interval.method, measure.reason or interval.reason)

    def plot(self) -> "Figure":
        """A figure of all maps, one below the other for each channel where channels were ablated apart."""
        from matplotlib.figure import Figure

        from nrmap.maps.heatmaps import draw_map

        keys = list(self._each())
        channels = self.by_episode.kmap.shape[1] if self.by_episode.kmap.ndim == 4 else 1
        figure = Figure(figsize=(3.6 * len(keys), 3.2 * channels), layout="constrained")
        axes = figure.subplots(channels, len(keys), squeeze=False)
        for column, (kind, temperature) in enumerate(keys):
            total = self._episodes(kind, temperature).sum(axis=0)
            title = MAP_NAMES[kind] + ("" if temperature is None else f", T = {temperature:g}")
            for channel, map_ in enumerate(total.reshape(-1, *total.shape[-2:])):
                place = title if channels == 1 else f"{title}, channel {channel}"
                draw_map(axes[channel, column], map_, kind=kind, title=place)
        return figure

    def save(self, path: str | Path) -> None:
        """Write an npz file, atomically. Raises NrmapError where the file cannot be written."""
        save_maps(Path(path), self.by_episode, self.metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Maps":
        """The maps in a file that `save` or an analysis wrote. Raises NrmapError for any other file."""
        return cls(*load_maps(Path(path)))

    def __repr__(self) -> str:
        episodes, pixels = len(self.by_episode.episode_ids), " × ".join(map(str, self.by_episode.kmap.shape[1:]))
        return f"Maps({pixels} pixels, states={self.num_states}, episodes={episodes}: {self.keys()})"

    def _each(self) -> Iterator[tuple[MapKind, float | None]]:
        for kind in MAP_NAMES:
            yield from (
                (kind, temperature) for temperature in (self.temperatures if kind in BY_TEMPERATURE else (None,))
            )

    def _episodes(self, kind: str, temperature: float | None) -> FloatArray:
        """The map of each episode, [E, H, W] or [E, C, H, W]."""
        if kind not in MAP_NAMES:
            raise unknown_choice("map", kind, MAP_NAMES)
        by_episode: FloatArray = getattr(self.by_episode, kind)
        if kind not in BY_TEMPERATURE:
            if temperature is not None:
                raise NrmapError(f"map {kind!r} has no temperature, found {temperature!r}: use maps[{kind!r}]")
            return by_episode
        if not isinstance(temperature, float | int):
            raise NrmapError(f"map {kind!r} needs a temperature: use maps[{kind!r}, {self.temperatures[0]}]")
        if temperature not in self.temperatures:
            nearest = min(self.temperatures, key=lambda known: abs(known - temperature))
            raise NrmapError(f"no temperature {temperature}: use maps[{kind!r}, {nearest}], of {self.temperatures}")
        at_temperature: FloatArray = by_episode[self.temperatures.index(temperature)]
        return at_temperature
