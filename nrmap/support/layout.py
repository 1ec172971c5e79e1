"""Paths of results under the outputs folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nrmap.support.errors import NrmapError
from nrmap.support.schema import safe_name

POLICY_FILE = "policy.safetensors"
CHECKPOINT_FILE = "checkpoint.safetensors"
CURVES_FILE = "curves.json"
METRICS_FILE = "metrics.json"
MAPS_FILE = "maps.npz"
SETTINGS_FILE = "settings.json"
OPTIONS_FILE = "options.json"
CARD_FILE = "README.md"
REFERENCE_FOLDER = "reference"
LONGEST_FILE_NAME = 255  # characters
PolicyStage = Literal["train", "imported", "evaluation", "maps"]


@dataclass(frozen=True)
class Layout:
    """Paths of results under the folder `outputs`, most of them named by the result's identity.

    No other code joins names from files or settings into paths. Methods raise NrmapError for a name that is not a
    `safe_name` of at most `LONGEST_FILE_NAME` characters; they make no folders. `scale` is the name of a set of
    settings, such as "quick".
    """

    outputs: Path

    def of_policy(self, stage: PolicyStage, *, game: str, method: str, seed: int, identity: str) -> Path:
        """The folder of a stage's results for one policy.

        "train": checkpoint, curves and, once finished, the policy. "imported": the policy from another program's
        file. "evaluation": its metrics. "maps": the maps, their metrics and figures.
        """
        return self._folder(stage, game, method, f"seed{seed}", identity)

    def states(self, *, game: str, identity: str) -> Path:
        """The states file of a roll-out or pool."""
        return self._folder("states", game, f"{identity}.npz")

    def evaluations(self, *, game: str, method: str, seed: int) -> list[Path]:
        """Return the metrics files of all finished evaluations of policies of this game, method and seed, sorted."""
        return sorted(self._folder("evaluation", game, method, f"seed{seed}").glob(f"*/{METRICS_FILE}"))

    def baselines(self, *, game: str, identity: str) -> Path:
        """The folder of the metrics of the state-independent baselines."""
        return self._folder("evaluation", game, "baseline", identity)

    def ablated(self, *, game: str, identity: str) -> Path:
        """The folder of a policy's ablated Q-values on a set of states."""
        return self._folder("ablated", game, identity)

    def reference(self, *, scale: str, game: str, method: str, seed: int) -> Path:
        """The folder of a reference policy with its curves, settings, evaluation and card."""
        return self._folder(REFERENCE_FOLDER, scale, game, method, f"seed{seed}")

    def reference_baselines(self, *, scale: str, game: str, identity: str) -> Path:
        """The folder of the state-independent baselines' metrics on the episodes of the reference policies."""
        return self._folder(REFERENCE_FOLDER, scale, game, "baseline", identity)

    def published(self, *parts: str) -> list[Path]:
        """Return the metrics files in the folder `references`, of all scales, sorted by path.

        `parts` are the names of the folders below that of the scale: GAME, METHOD and seedK for a policy, or GAME,
        "baseline" and IDENTITY for the state-independent baselines.
        """
        return sorted(self.references.glob(f"*/{_joined(parts)}/{METRICS_FILE}"))

    def _folder(self, *names: str) -> Path:
        return self.outputs / _joined(names)

    @property
    def references(self) -> Path:
        """The folder of all reference policies."""
        return self.outputs / REFERENCE_FOLDER

    @property
    def durations(self) -> Path:
        """The file of speeds of earlier commands, from which `Clock` estimates the time left."""
        return self.outputs / "durations.json"

    @property
    def report(self) -> Path:
        """The folder of the page, tables and figures of all results."""
        return self.outputs / "report"


def _joined(names: Sequence[str]) -> str:
    for name in names:
        try:
            safe_name(name, longest=LONGEST_FILE_NAME)
        except ValueError as error:
            raise NrmapError(f"{name!r} cannot be a part of a path: expected {error}") from error
    return "/".join(names)
