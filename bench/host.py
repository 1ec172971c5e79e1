"""Measurements for bench.cost: agent step, update, ablated state, checkpoint and memory."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.map_cases import make_cases
from bench.map_contenders import SPEC
from bench.train import machine
from bench.train_contenders import random_batch
from nrmap.ablation import make_engine
from nrmap.learning.settings import TrainSettings
from nrmap.support.layout import CHECKPOINT_FILE
from nrmap.support.runtime import choose_device, keep_freed_memory, peak_memory_mb, seconds_of
from train.checkpoint import load_checkpoint
from train.trainer import Trainer
from train.training import Training

MEGABYTE = 2**20
FOREVER = 10**9
# A trained policy; random weights take half the time.
MAPPED_POLICY = Path("outputs/reference/quick/Freeway/ddqn/seed0/policy.safetensors")
MAPPED_STATES = 64


def measure(trainings: Mapping[str, TrainSettings], device: str, agent_steps: int) -> dict[str, Any]:
    """Measure the content of host.json.

    `trainings` has the settings by method; "ddqn" collects, timed over `agent_steps` after as many to warm up.
    Training runs in its own process, so that its peak memory is measured alone.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        of_training = pool.apply(_measure_training, (trainings, device, agent_steps))
    return {**of_training, "ablating_seconds_per_state": _seconds_of_a_state(device)}


def _measure_training(trainings: Mapping[str, TrainSettings], device: str, agent_steps: int) -> dict[str, Any]:
    keep_freed_memory()
    described = machine()
    trainers = {method: collecting_trainer(settings, device, agent_steps) for method, settings in trainings.items()}
    trainer = trainers["ddqn"]
    iterations = trainer.run()
    seconds = 0.0
    for end in (agent_steps, 2 * agent_steps):  # the first half warms up emulators and replay memory
        begun, before = time.perf_counter(), trainer.agent_step
        while trainer.agent_step < end:
            next(iterations)
        seconds = (time.perf_counter() - begun) / (trainer.agent_step - before)
    updates = {method: _milliseconds_of_an_update(each, device) for method, each in trainers.items()}
    of_checkpoint = _checkpoint(trainer)  # after the updates, so that it includes Adam's state
    settings = trainings["ddqn"]
    frames = settings.replay.capacity - trainer.settings.replay.capacity  # left out here
    frames_mb = frames * settings.env.height * settings.env.width / MEGABYTE
    on_gpu = torch.cuda.max_memory_allocated() / MEGABYTE + frames_mb if device == "cuda" else None
    return {
        "device": device,
        "num_envs": settings.num_envs,
        "collecting_seconds_per_step": seconds,
        "update_milliseconds": updates,
        **of_checkpoint,
        "training_rss_mb": peak_memory_mb() + (frames_mb if on_gpu is None else 0),
        "training_gpu_mb": on_gpu,
        "machine": {**described, "gpu": torch.cuda.get_device_name() if device == "cuda" else None},
    }


def collecting_trainer(settings: TrainSettings, device: str, capacity: int) -> Trainer:
    """Make a trainer that only collects, into a replay of `capacity` frames.

    The exploration rate is final from the start. With mostly random actions the network
    would rarely be called, and the time of acting would be missing.
    """
    changed = replace(
        settings,
        steps=FOREVER,
        warm_up_steps=FOREVER,
        replay=replace(settings.replay, capacity=capacity),
        exploration=replace(settings.exploration, epsilon_initial=settings.exploration.epsilon_final),
    )
    return Trainer(changed, device=choose_device(device))


def _checkpoint(trainer: Trainer) -> dict[str, float]:
    """Measure writing a checkpoint and resuming from it, which replays the episodes of the replay memory."""
    with tempfile.TemporaryDirectory() as folder:
        training = Training(Path(folder), lambda: trainer)
        begun = time.perf_counter()
        training.save()
        written = time.perf_counter()
        again = Trainer(trainer.settings, device=trainer.learner.device)
        begun_again = time.perf_counter()
        again.set_state(load_checkpoint(Path(folder) / CHECKPOINT_FILE)["trainer"])
        return {
            "checkpoint_mb": (Path(folder) / CHECKPOINT_FILE).stat().st_size / MEGABYTE,
            "checkpoint_seconds": written - begun,
            "replaying_seconds_per_step": (time.perf_counter() - begun_again) / trainer.agent_step,
        }


def _milliseconds_of_an_update(trainer: Trainer, device: str, updates: int = 20) -> float:
    """Return the milliseconds of an update; on a GPU with the draw from the replay, which is part of the CUDA graph."""
    of_batch = partial(trainer.learner.update, random_batch(), agent_step=FOREVER)
    update: Callable[[], Any] = trainer.learn if device == "cuda" else of_batch
    while device == "cuda" and trainer.agent_step < 1024:
        trainer.step()

    def block() -> None:
        for _ in range(updates):
            update()

    return 1000 * seconds_of(block, torch.device(device)) / updates


def _seconds_of_a_state(device: str, rounds: int = 5) -> float:
    """Return the median seconds to ablate all pixels of one Freeway state with the settings of `analyze`."""
    with tempfile.TemporaryDirectory() as folder:
        (case,) = make_cases(Path(folder), [MAPPED_POLICY], MAPPED_STATES, ["1 frame, dueling"])
        policy, states = case.load()
    engine = make_engine(policy.to(device), spec=SPEC, differences_only=True)

    def ablate() -> None:
        for _ in engine.ablate(states):
            pass

    times = [seconds_of(ablate, torch.device(device), warm_ups=number == 0) for number in range(rounds)]
    return statistics.median(times) / len(states)
