"""From settings to a policy file: look it up, go on from a checkpoint, or start; one at a time."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import torch

from nrmap.errors import NrmapError
from nrmap.files import remove_leftovers, write_json
from nrmap.layout import CHECKPOINT_FILE, CURVES_FILE, POLICY_FILE, SETTINGS_FILE, Layout
from nrmap.learning.lookup import load_parent, training_folder
from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.policy import Policy, PolicyCard, save_policy
from nrmap.progress import Progress
from nrmap.runtime import provenance
from nrmap.tracking import Tracker
from train.checkpoint import load_checkpoint, save_checkpoint
from train.curves import Curves
from train.trainer import Trainer

log = logging.getLogger(__name__)

# Opens the tracker of one run, given its settings, identity and folder.
OpenTracker = Callable[[TrainSettings, str, Path], AbstractContextManager[Tracker]]


@dataclass(frozen=True)
class RunOptions:
    """What a run may do without its result changing."""

    layout: Layout
    device: torch.device
    precision: torch.dtype
    checkpoint_seconds: float
    open_tracker: OpenTracker


def ensure_trained(settings: TrainSettings, options: RunOptions) -> Path:
    """The policy file of `settings`, trained now if it is not there, its parent first if that is no file.

    A lock in the run's folder lets one process train while others that want the same policy wait
    for it. Raises NrmapError when the folder cannot be written, a checkpoint not be read, and a file
    to start from does not fit.
    """
    parent = None
    if settings.parent is not None:
        start = settings.parent
        parent_path = Path(start.path) if isinstance(start, PolicyFile) else ensure_trained(start, options)
        parent = load_parent(settings, parent_path, options.device)
    parent_sha256 = None if parent is None else parent.sha256
    identity = settings.identity(parent_sha256)
    folder = training_folder(settings, options.layout, parent_sha256)
    policy_path = folder / POLICY_FILE
    label = settings.label
    if policy_path.is_file():
        log.info("%s: already trained, %s", label, policy_path)
        return policy_path
    with _locked(folder, label):
        if not policy_path.is_file():
            with options.open_tracker(settings, identity, folder) as tracker:
                _train(settings, options, folder=folder, parent=parent, tracker=tracker, label=label)
    return policy_path


def _locked(folder: Path, label: str) -> AbstractContextManager[Any]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock")
        try:
            return lock.acquire(timeout=0)
        except filelock.Timeout:
            log.info("%s: being trained by another process, waiting for it", label)
            return lock.acquire()
    except OSError as error:
        raise NrmapError(f"cannot write {folder}: {error.strerror or error}") from error


def _train(
    settings: TrainSettings,
    options: RunOptions,
    *,
    folder: Path,
    parent: Policy | None,
    tracker: Tracker,
    label: str,
) -> None:
    remove_leftovers(folder)
    write_json(folder / SETTINGS_FILE, _recorded(settings, parent))
    initial = None if parent is None else parent.network
    trainer = Trainer(settings, device=options.device, initial=initial, precision=options.precision)
    curves = Curves()
    checkpoint_path = folder / CHECKPOINT_FILE
    if checkpoint_path.is_file():
        state = load_checkpoint(checkpoint_path)
        log.info("%s: going on from agent step %s", label, f"{state['trainer']['agent_step']:,}")
        trainer.set_state(state["trainer"])
        curves = Curves.from_state(state["curves"])

    def checkpoint() -> None:
        save_checkpoint(checkpoint_path, {"trainer": trainer.get_state(), "curves": curves.get_state()})
        write_json(folder / CURVES_FILE, curves.get_state())

    last_checkpoint = time.monotonic()
    with Progress(f"{label}: training", unit="steps", initial=trainer.agent_step) as progress:
        for iteration in trainer.run():
            curves.record(iteration)
            if curves.row_is_due(iteration.agent_step) or iteration.agent_step >= settings.steps:
                row = curves.add_row(iteration.agent_step, trainer.metrics())
                tracker.log(row, step=iteration.agent_step)
            progress.update(iteration.agent_step, settings.steps, curves.describe())
            if time.monotonic() - last_checkpoint > options.checkpoint_seconds:
                checkpoint()
                last_checkpoint = time.monotonic()
    write_json(folder / CURVES_FILE, curves.get_state())
    policy_path = folder / POLICY_FILE
    save_policy(policy_path, _policy(settings, trainer, parent, curves), dtype=torch.float16)
    checkpoint_path.unlink(missing_ok=True)
    recent = curves.recent_mean_return()
    tracker.summary({"seconds": curves.seconds, **({} if recent is None else {"recent_mean_return": recent})})
    tracker.artifact(label.replace("/", "-"), "policy", [policy_path, folder / CURVES_FILE])
    log.info("%s: trained, %s, %s", label, curves.describe(), policy_path)


def _recorded(settings: TrainSettings, parent: Policy | None) -> dict[str, Any]:
    """The settings as files keep them: those of a parent that is a file are its own, wherever it lies."""
    recorded = asdict(settings)
    if parent is not None and isinstance(settings.parent, PolicyFile):
        recorded["parent"] = {"steps": parent.card.agent_steps, **parent.card.settings}
    return recorded


def _policy(settings: TrainSettings, trainer: Trainer, parent: Policy | None, curves: Curves) -> Policy:
    parent_sha256 = None if parent is None else parent.sha256
    results: Mapping[str, Any] = {
        "updates": trainer.learner.updates,
        "precision": str(trainer.learner.precision).removeprefix("torch."),
        "recent_mean_return": curves.recent_mean_return(),
        "seconds": curves.seconds,
    }
    card = PolicyCard(
        method=settings.method,
        seed=settings.seed,
        agent_steps=trainer.agent_step,
        identity=settings.identity(parent_sha256),
        settings=_recorded(settings, parent),
        parent_sha256=parent_sha256,
        results=dict(results),
        provenance=provenance(),
    )
    return Policy(trainer.learner.online, settings.env, card)
