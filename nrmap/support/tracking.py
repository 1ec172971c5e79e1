"""What a run tells Weights & Biases, or nobody: the choice of mode and one run's lifetime.

W&B is a copy for reading along. Every number it gets is also in this project's own files, so
nothing here may change or end the work that is being tracked, nor hold it up by more than the
seconds that `nrmap.support.wandb_tracker` gives a start and an end. Mistakes in the settings are errors:
`TrackingSpec` and `decide_mode` find them, before there is any work.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from nrmap.support.errors import NrmapError, check, unknown_choice

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]
JobType = Literal["train", "analyze"]

# What W&B itself accepts in WANDB_MODE, its two old names included.
_ENVIRONMENT_MODES: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "disabled": "disabled",
    "run": "online",
    "dryrun": "offline",
}
_NOT_IN_PROJECT_NAMES = "/\\#?%:"


@dataclass(frozen=True)
class TrackingSpec:
    """Whether and where runs are tracked. `auto` goes online with an account and offline without.

    `group` and `tags` come on top of what the caller of `track` gives: a group replaces the
    caller's, tags are added. Raises NrmapError for an unknown mode, a project name that W&B would
    refuse, and tags that are not a list of words.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "nrmap"
    entity: str | None = None
    group: str | None = None
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        modes = ("auto", *get_args(Mode))
        if self.mode not in modes:
            raise unknown_choice("wandb.mode", self.mode, modes)
        refused = not self.project or any(character in _NOT_IN_PROJECT_NAMES for character in self.project)
        check(not refused, f"wandb.project={self.project!r}: expected a name without {' '.join(_NOT_IN_PROJECT_NAMES)}")
        words = not isinstance(self.tags, str) and all(isinstance(tag, str) and tag for tag in self.tags)
        check(words, f"wandb.tags={self.tags!r}: expected a list of words, such as [first,second]")


class Tracker(Protocol):
    """Where one run's metrics, tables, images and files go."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Points of curves at agent step `step`; a step that is not after the last one may be dropped."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """The run's final numbers, by name; a later value replaces an earlier one."""

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table; a column holds values of one type, and None where there is none."""

    def image(self, name: str, image: Path | NDArray[np.uint8], caption: str | None = None) -> None:
        """A picture: a file, or uint8 [H, W] or [H, W, 3] in [0, 255]."""

    def artifact(
        self,
        name: str,
        type: str,
        files: Mapping[str, Path] | Sequence[Path],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Files as one versioned artifact, copied now; a mapping names them, else each keeps its own name."""


class NoTracker:
    """A tracker that keeps nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See Tracker."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """See Tracker."""

    def table(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """See Tracker."""

    def image(self, name: str, image: Path | NDArray[np.uint8], caption: str | None = None) -> None:
        """See Tracker."""

    def artifact(
        self,
        name: str,
        type: str,
        files: Mapping[str, Path] | Sequence[Path],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """See Tracker."""


def summary_name(
    metric: str, *, attack: str | None = None, attack_epsilon: float | None = None, temperature: float | None = None
) -> str:
    """What a run's summary calls a measured value: `kmap_sparsity`, `hmap_sparsity_T0p1`, `flip_rate_fgsm_eps0p01`.

    Letters, digits and underscores only: W&B can neither sort nor filter by other names.
    """
    parts = [metric]
    if attack is not None:
        parts.append(re.sub(r"\W", "_", attack))
    if attack_epsilon is not None:
        parts.append("eps" + _number_in_name(attack_epsilon))
    if temperature is not None:
        parts.append("T" + _number_in_name(temperature))
    return "_".join(parts)


def _number_in_name(number: float) -> str:
    return f"{number:.3g}".replace(".", "p").replace("-", "m").replace("+", "")


def decide_mode(spec: TrackingSpec, environ: Mapping[str, str]) -> Mode:
    """The mode that `spec` names; for `auto` that of WANDB_MODE; else online if there is an API key, else offline.

    Where wandb is not installed the last is disabled, which is logged. Asks neither the user nor
    the network. Raises NrmapError for a WANDB_MODE that W&B does not know, and for `online`,
    by either name, without an API key.
    """
    mode = spec.mode if spec.mode != "auto" else _mode_of_environment(environ)
    if mode is None:
        return _mode_of_account()
    if mode == "online":
        from nrmap.support.wandb_tracker import has_credentials

        # Without a key W&B asks for one, and on a terminal waits for ever.
        check(
            has_credentials(),
            "wandb.mode=online without a valid API key: "
            "run `wandb login`, set WANDB_API_KEY, or use wandb.mode=offline",
        )
    return mode


def _mode_of_environment(environ: Mapping[str, str]) -> Mode | None:
    named = environ.get("WANDB_MODE")
    if not named:
        return None
    if named not in _ENVIRONMENT_MODES:
        raise unknown_choice("WANDB_MODE", named, get_args(Mode))
    return _ENVIRONMENT_MODES[named]


def _mode_of_account() -> Mode:
    from nrmap.support.wandb_tracker import has_credentials

    try:
        return "online" if has_credentials() else "offline"
    except NrmapError as error:
        _tell(error)
        return "disabled"


def _tell(error: NrmapError) -> None:
    log.warning("%s: the work goes on without W&B", error)


@contextmanager
def track(
    spec: TrackingSpec,
    *,
    job_type: JobType,
    name: str,
    group: str,
    run_id: str,
    config: Mapping[str, Any],
    tags: Sequence[str],
    folder: Path,
) -> Iterator[Tracker]:
    """A tracker for one run, whose W&B files lie under `folder`/wandb.

    The same `run_id` continues the same run, so it should follow from the result's identity. The
    run ends as failed when the block raises. Runs may be nested. Without a network at the start
    the run is kept offline. Where it cannot start at all, be it that wandb is not installed or
    `folder` cannot be written, the block has a NoTracker; that, and the first failure later on,
    is one line in the log. Raises NrmapError only where `decide_mode` does.
    """
    mode = decide_mode(spec, os.environ)
    if mode == "disabled":
        yield NoTracker()
        return
    from nrmap.support.wandb_tracker import WandbTracker

    try:
        tracker = WandbTracker.start(
            mode=mode,
            project=spec.project,
            entity=spec.entity,
            job_type=job_type,
            name=name,
            group=spec.group or group,
            run_id=run_id,
            config=config,
            tags=list(dict.fromkeys([*spec.tags, *tags])),
            folder=folder,
        )
    except NrmapError as error:
        _tell(error)
        yield NoTracker()
        return
    try:
        yield tracker
    except BaseException:
        tracker.finish(exit_code=1)
        raise
    tracker.finish(exit_code=0)
