"""Paths of results under the outputs folder."""

from dataclasses import dataclass
from pathlib import Path

POLICY_FILE = "policy.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
CURVES_FILE = "curves.json"
METRICS_FILE = "metrics.json"
MAPS_FILE = "maps.npz"
SETTINGS_FILE = "settings.json"
CARD_FILE = "README.md"
REFERENCE_FOLDER = "reference"


@dataclass(frozen=True)
class Layout:
    """The folders under `outputs`. Every stage has its own, each result one named by its identity."""

    outputs: Path

    def training(self, *, game: str, method: str, seed: int, identity: str) -> Path:
        """One training run: checkpoint, curves and, once finished, the policy."""
        return self.outputs / "train" / game / method / f"seed{seed}" / identity

    def states(self, *, game: str, identity: str) -> Path:
        """The states file of one roll-out or pool."""
        return self.outputs / "states" / game / f"{identity}.npz"

    def evaluation(self, *, game: str, method: str, seed: int, identity: str) -> Path:
        """One evaluation: its metrics."""
        return self.outputs / "evaluation" / game / method / f"seed{seed}" / identity

    def evaluations(self, *, game: str, method: str, seed: int) -> list[Path]:
        """The metrics of every evaluation there is of such policies."""
        return sorted(self.evaluation(game=game, method=method, seed=seed, identity="").glob(f"*/{METRICS_FILE}"))

    def baselines(self, *, game: str, identity: str) -> Path:
        """The players that do not look at the screen: their metrics."""
        return self.outputs / "evaluation" / game / "baseline" / identity

    def ablated(self, *, game: str, identity: str) -> Path:
        """The ablated Q-values of one policy on one set of states."""
        return self.outputs / "ablated" / game / identity

    def maps(self, *, game: str, method: str, seed: int, identity: str) -> Path:
        """Maps, their metrics and their figures."""
        return self.outputs / "maps" / game / method / f"seed{seed}" / identity

    def reference(self, *, game: str, method: str, seed: int) -> Path:
        """One reference policy with its curves, settings, evaluation and card."""
        return self.references / game / method / f"seed{seed}"

    def reference_baselines(self, *, game: str, identity: str) -> Path:
        """What `baselines` has of the episodes that the reference policies were measured on."""
        return self.references / game / "baseline" / identity

    @property
    def references(self) -> Path:
        """All reference policies."""
        return self.outputs / REFERENCE_FOLDER

    @property
    def report(self) -> Path:
        """The page and the tables over everything under `outputs`."""
        return self.outputs / "report"
