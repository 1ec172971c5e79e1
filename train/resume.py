"""A training as it stands in a checkpoint, which goes on in the numbers that it was begun in, or not at all."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from nrmap.learning.settings import TrainSettings
from nrmap.policies.network import QNetwork
from nrmap.support.errors import NrmapError, check
from train.checkpoint import load_checkpoint, save_checkpoint
from train.curves import Curves
from train.trainer import Trainer

log = logging.getLogger(__name__)


def keep(path: Path, trainer: Trainer, curves: Curves) -> None:
    """Write all that the rest of the run depends on to the checkpoint `path`."""
    machine = {"device": trainer.learner.device.type, "precision": name_of(trainer.learner.precision)}
    save_checkpoint(path, {"machine": machine, "trainer": trainer.get_state(), "curves": curves.get_state()})


def start_or_resume(
    settings: TrainSettings,
    path: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    any_precision: bool,
    initial: QNetwork | None,
) -> tuple[Trainer, Curves]:
    """The training in the checkpoint `path`, or where there is none a new one in `precision` from `initial`.

    With `any_precision` a checkpoint of another precision goes on in its own. Raises NrmapError
    for one that cannot go on on `device`, in `precision` or with the emulator installed.
    """
    if not path.is_file():
        return Trainer(settings, device=device, initial=initial, precision=precision), Curves()
    state = load_checkpoint(path)
    precision = _precision_to_go_on_in(path, state["machine"], device, None if any_precision else precision)
    agent_step = f"{state['trainer']['agent_step']:,}"
    log.info("%s: going on from agent step %s, in %s", settings.label, agent_step, name_of(precision))
    trainer = Trainer(settings, device=device, initial=initial, precision=precision)
    try:
        trainer.set_state(state["trainer"])
    except NrmapError as error:
        raise NrmapError(f"{error}; remove {path} to start anew") from error
    return trainer, Curves.from_state(state["curves"])


def _precision_to_go_on_in(
    path: Path, machine: Mapping[str, str], device: torch.device, asked: torch.dtype | None
) -> torch.dtype:
    begun_on, begun_in = machine["device"], machine["precision"]
    check(
        begun_on == device.type,
        f"the training in {path} was started on {begun_on}: continue with device={begun_on}, or remove the file",
    )
    if asked is not None and name_of(asked) != begun_in:
        raise NrmapError(
            f"the training in {path} was started in {begun_in}, not in {name_of(asked)}: "
            f"continue with precision={begun_in} or precision=auto, or remove the file"
        )
    precision: torch.dtype = getattr(torch, begun_in)
    return precision


def name_of(precision: torch.dtype) -> str:
    """`float32` or `bfloat16`, as the option `precision` and the cards of policies have it."""
    return str(precision).removeprefix("torch.")
