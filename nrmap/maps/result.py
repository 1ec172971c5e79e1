"""The maps of an agent as the public API returns them: looked up by name, measured, drawn, saved and loaded."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nrmap.maps.differences import paired_difference
from nrmap.maps.episode_maps import EpisodeMaps, load_maps, save_maps
from nrmap.maps.kinds import KINDS, FloatArray
from nrmap.maps.sparsity import sparsity_of_sum
from nrmap.statistics.intervals import Estimate
from nrmap.support.arguments import checked
from nrmap.support.errors import check, shortened

if TYPE_CHECKING:  # importing nrmap needs no matplotlib
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Maps:
    """The maps of one agent, each a sum over `num_states` states.

    `maps["kmap"]` is a map, float64 [H, W], or [C, H, W] if channels were ablated one at a time. Maps that depend on a
    temperature are looked up with it: `maps["hmap", 1.0]`. An unknown name or temperature raises NrmapError. Iterating
    gives `kinds`. `by_episode` holds the maps of each episode and, for states from `collect_states`, the numbers of the
    policies that played them. `metadata` holds the agent and the settings. Raises NrmapError for fields of another
    type.
    """

    by_episode: EpisodeMaps
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(
            isinstance(self.by_episode, EpisodeMaps), f"by_episode={shortened(self.by_episode)}: expected EpisodeMaps"
        )
        named = isinstance(self.metadata, dict) and all(isinstance(name, str) for name in self.metadata)
        check(named, f"metadata={shortened(self.metadata)}: expected a dict with words as keys")

    @property
    def num_states(self) -> int:
        """N, the number of states that each map is a sum over."""
        return self.by_episode.num_states

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures of the softmax policies, in order."""
        return self.by_episode.temperatures

    @property
    def kinds(self) -> list[tuple[str, float | None]]:
        """The name of every map and its temperature, which is None for maps that depend on none."""
        return [(kind.name, temperature) for kind, temperature, _ in self.by_episode.each()]

    def __iter__(self) -> Iterator[tuple[str, float | None]]:
        return iter(self.kinds)

    def __contains__(self, key: object) -> bool:
        return key in self.kinds or (key, None) in self.kinds

    def __getitem__(self, key: str | tuple[str, float | None]) -> FloatArray:
        total: FloatArray = self.by_episode[key].sum(axis=0)
        return total

    @checked
    def sparsity(self, kind: str, temperature: float | None = None) -> Estimate:
        """Estimate S = ‖M‖₁ / ‖M‖₂ (eq. 9) of a map, from 1 for a single pixel to √(number of pixels) for a flat map.

        The value is None for a map of zeros. The 95% interval is a jackknife over episodes and needs 16 of them.
        `temperature` is None for maps that depend on none. Raises NrmapError for an unknown map or temperature.
        """
        by_episode = self.by_episode[kind, temperature]
        why_zero = KINDS[kind].zero_reason(self.num_states)
        return sparsity_of_sum(by_episode, why_zero, self.by_episode.players)

    def difference(self, other: "Maps", kind: str, temperature: float | None = None) -> Estimate:
        """Estimate the sparsity S of a map minus that of the same map of another agent on the same states.

        The 95% interval is a jackknife that leaves an episode out of both maps, so effects on both cancel. It needs 16
        episodes. The value is None if either map is 0 everywhere. `temperature` is None for maps that depend on none.
        Raises NrmapError for an unknown map or temperature, if `other` is no Maps, and for maps of other episodes,
        states, ablations or kinds of outputs.
        """
        check(isinstance(other, Maps), f"other={shortened(other)}: expected nrmap.Maps")
        for name in ("states_digest", "ablated_value", "channels", "outputs"):
            mine, theirs = self.metadata.get(name), other.metadata.get(name)
            check(
                None in (mine, theirs) or mine == theirs,
                f"maps of other {name}: {shortened(theirs)}, not {shortened(mine)}",
            )
        return paired_difference(self.by_episode, other.by_episode, kind, temperature)

    @checked
    def plot(self, temperature: float | None = None) -> "Figure":
        """Draw a figure with a heat map of each map, and of each channel if channels were ablated one at a time.

        With a `temperature` maps at other temperatures are left out; None keeps all. Raises NrmapError for an unknown
        temperature and for more than 12 maps, which do not fit into a figure.
        """
        from nrmap.maps.heatmaps import MOST_COLUMNS, map_figures

        total = self.by_episode.total()
        if temperature is not None:
            total = total.at(temperature)
        count = sum(1 for _ in total.each())
        check(count <= MOST_COLUMNS, f"{count} maps: give plot one of the temperatures {self.temperatures}")
        return next(map_figures(total))

    @checked
    def save(self, path: str | Path) -> None:
        """Write an npz file to `path`, atomically.

        Raises NrmapError if the folder is missing, `path` cannot be written or `load` would refuse the file, as for
        NaN.
        """
        folder = Path(path).parent
        check(folder.is_dir(), f"no folder {folder}: make it first")
        save_maps(Path(path), self.by_episode, self.metadata)

    @classmethod
    @checked
    def load(cls, path: str | Path) -> "Maps":
        """Load the maps in a file that `save` or an analysis wrote.

        Raises NrmapError if the file is missing, damaged or of another kind. Logs a warning if it is an older file of
        an analysis, which does not say which policies played.
        """
        maps = cls(*load_maps(Path(path)))
        if maps.by_episode.players is None and "states_sha256" in maps.metadata:
            log.warning("%s does not say which policies played: intervals assume that one did; map anew for more", path)
        return maps

    def __repr__(self) -> str:
        episodes, pixels = len(self.by_episode.episode_ids), " × ".join(map(str, self.by_episode.pixels))
        return f"Maps({pixels} pixels, states={self.num_states}, episodes={episodes}: {self.kinds})"
