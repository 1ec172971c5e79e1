"""Get the policy file of given settings: find it, resume its training, or train it."""

import logging
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from conf.schema import TrainKeys
from nrmap.learning.lookup import check_trained, load_parent, trained_policy, training_folder
from nrmap.learning.settings import PolicyFile, TrainSettings
from nrmap.policies.policy import Policy, PolicyCard, save_policy
from nrmap.robustness.perturbations import epsilon_text
from nrmap.support.clock import Clock, Part
from nrmap.support.files import remove_leftovers, write_json
from nrmap.support.identity import recorded
from nrmap.support.layout import CURVES_FILE, OPTIONS_FILE, POLICY_FILE, SETTINGS_FILE, Layout
from nrmap.support.locks import locked
from nrmap.support.progress import Progress
from nrmap.support.runtime import provenance
from nrmap.support.tracking import Tracker, track
from train.curves import Curves
from train.greedy_returns import GreedyReturns
from train.trainer import Trainer
from train.training import name_of, remove_checkpoints, start_or_resume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunOptions:
    """Options of a training command besides the settings of a run: all keys, device, layout of folders and clock.

    `given` are the options on the command line, kept so that the report can print the command again.
    """

    keys: TrainKeys
    device: torch.device
    layout: Layout
    clock: Clock = field(default_factory=Clock)
    given: Sequence[str] = ()


def missing_trainings(settings: TrainSettings, layout: Layout) -> list[TrainSettings]:
    """List the settings of the trainings that `ensure_trained` has to run, parents first.

    Raises NrmapError as `trained_policy` and `load_parent` do.
    """
    parent, path = settings.parent, None
    if isinstance(parent, TrainSettings):
        before = missing_trainings(parent, layout)
        if before:
            return [*before, settings]
        path = trained_policy(parent, layout)
    elif parent is not None:
        path = Path(parent.path)
    parent_sha256 = None if path is None else load_parent(settings, path).sha256
    return [] if (training_folder(settings, layout, parent_sha256) / POLICY_FILE).is_file() else [settings]


def training_part(settings: TrainSettings) -> Part:
    """Return the training as a part of a command, for estimates of the time left."""
    channels, height, width = settings.env.state_shape
    what = f"{channels}x{height}x{width}, batch {settings.learner.batch_size}, every {settings.steps_per_update}"
    return Part(f"{settings.label}: training", f"{what}/training by {settings.method}", units=settings.steps)


def ensure_trained(settings: TrainSettings, options: RunOptions) -> Path:
    """Return the path of the policy file of `settings`. Train the policy, and before it its parent, if missing.

    A lock in the run's folder makes other processes that need the same policy wait. Raises NrmapError for a folder
    that cannot be written, a checkpoint that cannot be read or resumed with these options, a parent file that does
    not fit, a training that diverges, and a finished policy that is damaged or of other settings. Raises NrmapError
    as `decide_mode` does for a wrong W&B setting.
    """
    parent = None
    if settings.parent is not None:
        start = settings.parent
        of_parent = replace(options, given=[option for option in options.given if not option.startswith("method.")])
        parent_path = Path(start.path) if isinstance(start, PolicyFile) else ensure_trained(start, of_parent)
        parent = load_parent(settings, parent_path, options.device)
    parent_sha256 = None if parent is None else parent.sha256
    identity = settings.identity(parent_sha256)
    folder = training_folder(settings, options.layout, parent_sha256)
    policy_path = folder / POLICY_FILE
    label = settings.label
    if not policy_path.exists():
        with locked(folder / "lock", f"{label}: being trained by another process, waiting for it"):
            if not policy_path.exists():
                with _tracked(settings, options.keys, identity, folder) as tracker:
                    _train(settings, options, folder=folder, parent=parent, tracker=tracker)
                return policy_path
    made_in, asked = check_trained(policy_path, identity).results.get("precision"), options.keys.precision
    if asked not in ("auto", made_in):
        log.info("%s: made in %s, not in %s; precision enters no identity", label, made_in, asked)
    log.info("%s: already trained, %s", label, policy_path)
    # A kill right after saving the policy leaves checkpoints behind; a read-only folder may keep them.
    with suppress(OSError):
        remove_checkpoints(folder)
    return policy_path


def _tracked(settings: TrainSettings, keys: TrainKeys, identity: str, folder: Path) -> AbstractContextManager[Tracker]:
    return track(
        keys.wandb, job_type="train", name=f"{settings.env.game}-{settings.method}-seed{settings.seed}",
        group=f"{settings.env.game}-{keys.scale['name']}", run_id=f"train-{identity}",
        config={"game": settings.env.game, **recorded(settings)}, tags=(settings.env.game, settings.method),
        folder=folder,
    )  # fmt: skip


def _train(
    settings: TrainSettings, options: RunOptions, *, folder: Path, parent: Policy | None, tracker: Tracker
) -> None:
    label, policy_path = settings.label, folder / POLICY_FILE
    remove_leftovers(folder)
    write_json(folder / SETTINGS_FILE, _recorded(settings, parent))
    choice = [f"env={settings.env.game}", f"method={settings.method}", f"seed={settings.seed}"]
    given = [option for option in options.given if option.startswith(("env.", "scale", "method."))]
    write_json(folder / OPTIONS_FILE, [*choice, *given])
    log.info("%s: %s", label, main_settings(settings, parent))
    keys, initial = options.keys, None if parent is None else parent.network
    training = start_or_resume(
        settings, folder, device=options.device, precision=keys.precision, initial=initial, graphs=keys.cuda == "graphs"
    )
    last_checkpoint, begun_at = time.monotonic(), training.trainer.agent_step
    greedy_returns = GreedyReturns(settings.env, settings.seed, keys.greedy_every, keys.greedy_episodes, begun_at)
    part = training_part(settings)
    with closing(greedy_returns), Progress(part.name, unit="steps", initial=begun_at, clock=options.clock) as progress:
        for iteration in training.iterations():
            trainer, curves = training.trainer, training.curves
            curves.record(iteration)
            is_last = iteration.agent_step >= settings.steps
            # After a roll-back agent steps repeat, and so do their greedy episodes.
            greedy_returns.played_at = min(greedy_returns.played_at, iteration.agent_step - settings.num_envs)
            if curves.row_is_due(iteration.agent_step) or is_last:
                row = curves.add_row(iteration.agent_step, trainer.metrics())
                greedy_returns.start_if_due(row, trainer.learner.policy_network)
                tracker.log({**row, **greedy_returns.finished(wait=is_last)}, step=iteration.agent_step)
            updating = iteration.agent_step > settings.warm_up_steps
            progress.update(iteration.agent_step, settings.steps, curves.describe(), steady=updating)
            if time.monotonic() - last_checkpoint > keys.checkpoint_seconds:
                training.save()
                write_json(folder / CURVES_FILE, curves.get_state())
                last_checkpoint = time.monotonic()
    curves = training.curves
    write_json(folder / CURVES_FILE, curves.get_state())
    save_policy(policy_path, _policy(settings, training.trainer, parent, curves), dtype=torch.float16)
    remove_checkpoints(folder)
    tracker.artifact(label, "policy", [policy_path, folder / CURVES_FILE])
    log.info("%s: trained, %s, %s", label, curves.describe(), policy_path)


def _recorded(settings: TrainSettings, parent: Policy | None) -> dict[str, Any]:
    """Return the settings as files hold them, see `recorded`; for a parent file its steps and settings, no path."""
    values = recorded(settings)
    if parent is not None and isinstance(settings.parent, PolicyFile):
        values["parent"] = {"steps": parent.card.agent_steps, **parent.card.settings}
    return values


def _policy(settings: TrainSettings, trainer: Trainer, parent: Policy | None, curves: Curves) -> Policy:
    parent_sha256 = None if parent is None else parent.sha256
    results = {
        "updates": trainer.learner.updates,
        "precision": name_of(trainer.learner.precision),
        **({"gpu": torch.cuda.get_device_name()} if trainer.learner.device.type == "cuda" else {}),
        "recent_mean_return": curves.recent_mean_return(),
        "seconds": curves.seconds,
        **({"rollbacks": curves.rollbacks} if settings.regulariser and settings.regulariser.rollback_every else {}),
    }
    card = PolicyCard(
        method=settings.method, seed=settings.seed, agent_steps=trainer.agent_step,
        identity=settings.identity(parent_sha256), settings=_recorded(settings, parent), parent_sha256=parent_sha256,
        results=results, provenance=provenance(),
    )  # fmt: skip
    return Policy(trainer.learner.policy_network(), settings.env, card)


def main_settings(settings: TrainSettings, parent: Policy | None) -> str:
    """Summarise a run in one line, which the log shows at the start so that misplaced overrides are seen.

    `160,000 agent steps, 38,000 updates, learning rate 0.0003 to 1e-05, exploration 0.05, …`
    """
    learner, exploration, regulariser = settings.learner, settings.exploration, settings.regulariser
    parts = [
        f"{settings.steps:,} agent steps",
        f"{settings.updates:,} updates",
        f"learning rate {_change(learner.learning_rate, learner.learning_rate_final)}",
        f"exploration {_change(exploration.epsilon_initial, exploration.epsilon_final)}",
    ]
    if exploration.epsilon_initial != exploration.epsilon_final:
        parts[-1] += f" over {exploration.decay_steps:,} steps"
    if regulariser is not None:
        first, last = regulariser.ramp_begin, regulariser.ramp_begin + regulariser.ramp_steps
        grows = {"kappa": "κ", "radius": "attack"}[regulariser.ramp_of]
        parts.append(f"κ {regulariser.kappa:g}, attack {epsilon_text(regulariser.attack_epsilon)}")
        parts.append(f"{grows} growing from step {first:,} to {last:,}")
    if parent is None:
        parts.append("from random weights")
    else:
        file = f" ({settings.parent.path})" if isinstance(settings.parent, PolicyFile) else ""
        parts += [f"anchor {settings.anchor:g}", f"from {parent.label}{file}"]
    return ", ".join(parts)


def _change(initial: float, final: float) -> str:
    return f"{initial:g}" if initial == final else f"{initial:g} to {final:g}"
