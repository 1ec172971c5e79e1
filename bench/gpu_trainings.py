"""Whole trainings for bench.gpu: several side by side on one device, and one for as long as there is time."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from bench import host
from bench.cost import METHODS, paper_study
from conf.command_line import composed
from conf.schema import TrainKeys
from conf.train_settings import train_settings
from nrmap.support.runtime import choose_device
from nrmap.support.schema import validated
from train.trainer import Trainer

SIDE_BY_SIDE = (1, 2, 4, 8)


@dataclass(frozen=True)
class Job:
    """The inputs of a stage: its device, the seconds that it should take, and a function that writes its results."""

    device: torch.device
    seconds: float
    report: Callable[[Mapping[str, Any]], None]

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU; False in a rehearsal."""
        return self.device.type == "cuda"


def side_by_side(job: Job) -> None:
    """Measure total agent steps and updates per second of one or several trainings at scale=paper on one device."""
    most = SIDE_BY_SIDE if job.on_gpu else (1, 2)
    spawn = multiprocessing.get_context("spawn")
    pipes = [spawn.Pipe() for _ in range(max(most))]
    for _, theirs in pipes:
        spawn.Process(target=_train_on_demand, args=(theirs, str(job.device.type)), daemon=True).start()
    connections = [ours for ours, _ in pipes]
    for connection in connections:
        connection.recv()  # ready
    seconds, found = max(job.seconds / 16, 0.5), {}
    for method in METHODS:
        for number in most:
            for connection in connections[:number]:
                connection.send((method, seconds))
            rates = np.array([connection.recv() for connection in connections[:number]])  # [number, 2]
            steps, per_second = rates.sum(axis=0).tolist()
            found[f"{method} {number}"] = {"agent_steps_per_second": steps, "updates_per_second": per_second}
            job.report(found)


def _train_on_demand(connection: Connection, device: str) -> None:
    torch.set_num_threads(1)
    trainings = paper_study(1, 1).trainings
    iterators = {}
    for method in METHODS:
        settings = trainings[method]
        replay = replace(settings.replay, capacity=20_000)
        changed = replace(settings, steps=host.FOREVER, warm_up_steps=512, replay=replay)
        trainer = Trainer(changed, device=choose_device(device))
        iterators[method] = trainer, trainer.run()
        while trainer.learner.updates < 8:
            next(iterators[method][1])
    connection.send("ready")
    while True:
        method, seconds = connection.recv()
        trainer, iterations = iterators[method]
        steps, number, begun = trainer.agent_step, trainer.learner.updates, time.perf_counter()
        while (taken := time.perf_counter() - begun) < seconds:
            next(iterations)
        trainer.metrics()  # waits for the device
        taken = time.perf_counter() - begun
        connection.send(((trainer.agent_step - steps) / taken, (trainer.learner.updates - number) / taken))


def training(job: Job) -> None:
    """Train DDQN on Freeway until it is done or out of time; report its speed and returns.

    The scale is quick on a GPU and smoke on a CPU.
    """
    begun = time.perf_counter()
    keys = validated(TrainKeys, composed("train", "scale=quick" if job.on_gpu else "scale=smoke"))
    trainer = Trainer(train_settings(keys), device=job.device)
    returns: list[float] = []
    for iteration in trainer.run():
        returns += [episode.undiscounted_return for episode in iteration.finished_episodes]
        finished = iteration.agent_step >= trainer.settings.steps
        if finished or iteration.agent_step % 1024 < trainer.settings.num_envs:
            seconds = time.perf_counter() - begun
            job.report(
                {
                    "finished": finished,
                    "agent_steps": iteration.agent_step,
                    "updates": trainer.learner.updates,
                    "seconds": seconds,
                    "agent_steps_per_second": iteration.agent_step / seconds,
                    "mean_of_last_16_returns": float(np.mean(returns[-16:])) if returns else None,
                }
            )
            if seconds > job.seconds:
                return
