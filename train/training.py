"""One training run: checkpoints, exact resume, and roll-back where the run's own attack has become too weak."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from nrmap.learning.inner_attack import STRONGEST
from nrmap.learning.settings import TrainSettings
from nrmap.policies.network import QNetwork
from nrmap.support.errors import NrmapError, check, first_line
from nrmap.support.layout import CHECKPOINT_FILE
from nrmap.support.runtime import choose_precision
from train.checkpoint import load_checkpoint, save_checkpoint
from train.curves import Curves
from train.trainer import Iteration, Trainer

log = logging.getLogger(__name__)

GOOD_CHECKPOINT_FILE = "good.safetensors"  # beside the checkpoint
# The training's attack lowers margins, which it should raise, before PGD-10 flips far more: see docs/training.md.
GOOD_MARGIN_FELL = 0.005


class Training:
    """A trainer, its curves and its two checkpoints in the folder of a run.

    `checkpoint.safetensors` is written at intervals of wall-clock time, to survive a kill. `good.safetensors`,
    for roll-backs, is written at fixed agent steps, so that a killed and resumed run rolls back to the same
    state. A state is good if PGD-10 does not flip far more states than the training's own attack, and if that
    attack, which should raise the margins of eq. 7, lowered at most 0.5% of them in the latest row of the curve.
    """

    def __init__(self, folder: Path, make_trainer: Callable[[], Trainer]) -> None:
        """A new training in `folder`; `make_trainer` makes its trainer, and another one for each roll-back."""
        self._folder, self._make_trainer = folder, make_trainer
        self.trainer, self.curves = make_trainer(), Curves()
        self._probed_at, self._was_behind = 0, False  # the agent step and the outcome of the last probe

    def iterations(self) -> Iterator[Iteration]:
        """Train to the end from the current step; yield each `Iteration`. After a roll-back agent steps repeat.

        Saves good.safetensors, but checkpoint.safetensors only at a roll-back: at other times the caller calls `save`.
        Raises NrmapError as `save`, `restore` and `load_checkpoint` do.
        """
        while True:
            self._probe_if_due()
            if self.trainer.agent_step >= self.trainer.settings.steps:
                return
            yield self.trainer.step()

    def save(self, name: str = CHECKPOINT_FILE) -> None:
        """Save all state that the rest of the run depends on as the file `name` in the run's folder.

        Raises NrmapError as `save_checkpoint` does.
        """
        machine = {"device": self.trainer.learner.device.type, "precision": name_of(self.trainer.learner.precision)}
        last_probe = {"agent_step": self._probed_at, "was_behind": self._was_behind}
        state = {"of": self._folder.name, "machine": machine, "last_probe": last_probe}
        whole = {**state, "curves": self.curves.get_state(), "trainer": self.trainer.get_state()}
        save_checkpoint(self._folder / name, whole)

    def restore(self, state: Mapping[str, Any], path: Path) -> None:
        """Continue from `state`, the content of the checkpoint `path`, which only errors name.

        Raises NrmapError if `state` is damaged or of another training, and if the emulator now plays the logged
        episodes differently.
        """
        try:
            of = state.get("of", self._folder.name)  # older files lack it
            check(of == self._folder.name, f"{path} is of another training, {of}")
            self.trainer.set_state(state["trainer"])
            self.curves = Curves.from_state(state["curves"])
            if "last_probe" in state:  # files from before roll-backs lack it
                self._probed_at, self._was_behind = (state["last_probe"][key] for key in ("agent_step", "was_behind"))
        except NrmapError as error:
            raise NrmapError(f"{error}; remove {path} to start anew") from error
        except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise NrmapError(f"{path} is damaged ({reason}): remove it to start anew") from error

    def _probe_if_due(self) -> None:
        """Every `rollback_every` agent steps, save a good state, or roll back if the attack is left behind twice.

        That is, `left_behind` holds at two probes in a row. An attack of 10 steps is never left behind.
        """
        regulariser, agent_step = self.trainer.settings.regulariser, self.trainer.agent_step
        every = regulariser.rollback_every if regulariser else 0
        if regulariser is None or not every or agent_step // every == self._probed_at // every:
            return
        probe = self.trainer.probe()
        attack = self.trainer.learner.inner_attack
        assert attack is not None, "only PGD has roll-backs"
        behind = regulariser.left_behind(**probe) and attack.steps < STRONGEST
        if behind and self._was_behind:
            self._roll_back(probe)
            return
        self._probed_at, self._was_behind = agent_step, behind
        fell = self.curves.rows[-1].get("margin_fell", 0.0) if self.curves.rows else 0.0
        if not behind and fell <= GOOD_MARGIN_FELL:
            self.save(GOOD_CHECKPOINT_FILE)

    def _roll_back(self, probe: Mapping[str, float]) -> None:
        """Go back to the last good checkpoint, or to the start, with a stronger attack.

        Records the roll-back in the curves, saves the checkpoint and logs a warning.
        """
        left, level, seconds = self.trainer.agent_step, self.trainer.learner.attack_level + 1, self.curves.seconds
        before = self.curves
        self.trainer, self.curves = self._make_trainer(), Curves()
        self._probed_at, self._was_behind = 0, False
        good = self._folder / GOOD_CHECKPOINT_FILE
        if good.is_file():
            self.restore(load_checkpoint(good), good)
        self.trainer.learner.attack_level = level
        attack = self.trainer.learner.inner_attack
        assert attack is not None
        report = {
            "agent_step": left, "back_to": self.trainer.agent_step, **probe, "inner_attack": attack.kind,
            "pgd_steps": attack.steps, "pgd_step_fraction": attack.step_fraction,
        }  # fmt: skip
        self.curves.rollbacks = [*before.rollbacks, report]
        self.curves.abandoned_rows = [*before.abandoned_rows, *before.rows[len(self.curves.rows) :]]
        self.curves.set_seconds(seconds)
        self.save()
        log.warning(
            "%s: at agent step %s PGD-10 flips %.0f%% of the latest states, the training's own attack %.0f%%: "
            "back to agent step %s, with PGD in %s steps of %.2g radii",
            self.trainer.settings.label, f"{left:,}", 100 * probe["probe_flips"], 100 * probe["probe_own_flips"],
            f"{self.trainer.agent_step:,}", attack.steps, attack.step_fraction,
        )  # fmt: skip


def remove_checkpoints(folder: Path) -> None:
    """Remove both checkpoints of the run in `folder`, if they are there."""
    for name in (CHECKPOINT_FILE, GOOD_CHECKPOINT_FILE):
        (folder / name).unlink(missing_ok=True)


def start_or_resume(
    settings: TrainSettings,
    folder: Path,
    *,
    device: torch.device,
    precision: str = "auto",
    initial: QNetwork | None = None,
    graphs: bool = True,
) -> Training:
    """Resume the training in `folder` from its checkpoint, else start one from `initial` (None: random weights).

    `precision` is auto, float32 or bfloat16; with auto a checkpoint resumes in the precision that it was written in.
    `graphs`: see `Trainer`. Raises NrmapError for a damaged checkpoint, and for one that cannot resume on `device`, in
    `precision` or with the installed emulator. Raises ValueError as `Trainer` does.
    """
    path = folder / CHECKPOINT_FILE
    state = load_checkpoint(path) if path.is_file() else None
    if state is not None:
        precision = _precision_to_resume_in(path, state, device, precision)
    dtype = choose_precision(precision, device)
    training = Training(
        folder, partial(Trainer, settings, device=device, initial=initial, precision=dtype, graphs=graphs)
    )
    if state is None:
        remove_checkpoints(folder)  # a good one may be left from a run whose checkpoint was removed
        return training
    training.restore(state, path)
    agent_step = f"{training.trainer.agent_step:,}"
    log.info("%s: going on from agent step %s, in %s", settings.label, agent_step, precision)
    return training


def _precision_to_resume_in(path: Path, state: Mapping[str, Any], device: torch.device, asked: str) -> str:
    machine: Any = state.get("machine")
    fits = isinstance(machine, dict) and machine.get("precision") in ("float32", "bfloat16") and "device" in machine
    check(fits, f"{path} is damaged: remove it to start anew")
    begun_on, begun_in = machine["device"], str(machine["precision"])
    what = f"the training in {path} was started"
    check(begun_on == device.type, f"{what} on {begun_on}: continue with device={begun_on}, or remove the file")
    instead = f"continue with precision={begun_in} or precision=auto, or remove the file"
    check(asked in ("auto", begun_in), f"{what} in {begun_in}, not in {asked}: {instead}")
    return begun_in


def name_of(precision: torch.dtype) -> str:
    """Return the name of a dtype as in the option `precision` and in policy cards, e.g. `bfloat16`."""
    return str(precision).removeprefix("torch.")
