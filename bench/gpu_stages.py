"""Make one of the measurements of bench.gpu: `python -m bench.gpu_stages NAME`.

A stage writes its results as it goes, so that one that runs out of time loses only the rest.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import host, map_contenders
from bench.cost import paper_study
from bench.gpu_trainings import Job, side_by_side, training
from bench.map_cases import make_cases, random_policy
from bench.train import machine
from bench.train_contenders import GAME, our_learner, random_batch
from nrmap.ablation import make_engine
from nrmap.ablation.dense import DenseEngine
from nrmap.learning.device_replay import DeviceReplay
from nrmap.learning.device_updates import DeviceUpdates
from nrmap.learning.replay import ReplaySpec
from nrmap.maps.sweep import sweep_maps, sweep_workers
from nrmap.play.players import AttackedPlayer
from nrmap.policies.network import unit_states
from nrmap.policies.policy import Policy
from nrmap.robustness.attacks import StateNoise, pgd
from nrmap.support.cuda_graphs import Graphed
from nrmap.support.errors import errors_in_one_line
from nrmap.support.files import write_json
from nrmap.support.runtime import choose_device, seconds_of

SOLVERS = {"ddqn": None, "sa_ddqn": "pgd", "sa_ddqn_ibp": "ibp"}
COMPARED_UPDATES = 100
AGENT_STEP = 10**9  # late enough for the full attack radius
ATTACKED_STATES = 20  # episodes at a time in evaluation=paper


def milliseconds(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Return the milliseconds of a call of `work`: the median over five blocks of calls, of about `seconds` in all.

    On a CPU `work` is called only once.
    """
    if device.type == "cpu":
        return 1000 * seconds_of(work, device, warm_ups=0)
    each = seconds_of(work, device, warm_ups=4)  # the fourth call captures a graph
    calls = max(math.ceil(seconds / 5 / each), 1)

    def block() -> None:
        for _ in range(calls):
            work()

    return 1000 * statistics.median(seconds_of(block, device, warm_ups=0) for _ in range(5)) / calls


def updates(job: Job) -> None:
    """Compare updates of each method with and without CUDA graphs: equality of weights, time, kernels, memory."""
    found: dict[str, Any] = {}
    for method, solver in SOLVERS.items():
        steps = {name: RandomUpdates(job, solver, graphs=name == "graphs") for name in ("graphs", "eager")}
        compared = COMPARED_UPDATES if job.on_gpu else 2
        for _ in range(compared):
            for step in steps.values():
                step()
        one, two = (torch.cat([p.detach().flatten() for p in step.parameters]) for step in steps.values())
        found[method] = of_method = {
            "updates_compared": compared,
            "equal_bit_for_bit": torch.equal(one, two),
            "largest_difference": float((one - two).abs().max()),
        }
        share = job.seconds / len(SOLVERS) / 6
        for name, step in steps.items():
            of_method[f"milliseconds_{name}"] = milliseconds(step, job.device, share)
            job.report(found)
        of_method["milliseconds_without_replay"] = milliseconds(_learner_alone(job, solver), job.device, share)
        if job.on_gpu:
            of_method["kernels"] = _kernels(steps["eager"])
            of_method["at_2_us_a_kernel"] = 0.002 * of_method["kernels"]
            torch.backends.cudnn.deterministic = False
            other = RandomUpdates(job, solver, graphs=True)
            of_method["milliseconds_not_deterministic"] = milliseconds(other, job.device, share)
            torch.backends.cudnn.deterministic = True
            of_method["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        job.report(found)


class RandomUpdates:
    """Makes training updates from a replay of random states; all seeds are fixed."""

    def __init__(self, job: Job, solver: Any, *, graphs: bool) -> None:
        learner = our_learner(solver=solver, device=job.device)
        spec = ReplaySpec(2048, 1, 0.99, priority_exponent=0.5)
        replay = DeviceReplay(spec, num_envs=8, state_shape=GAME.state_shape, device=job.device)
        _fill(replay)
        self.parameters = list(learner.online.parameters())
        self._updates = DeviceUpdates(learner, replay, importance=lambda step: 1.0, graphs=graphs)
        self._rng = np.random.default_rng(0)

    def __call__(self) -> dict[str, Tensor]:
        """Make one update; return its diagnostics."""
        return self._updates(self._rng, AGENT_STEP)


def _fill(replay: DeviceReplay) -> None:
    rng, envs = np.random.default_rng(1), np.arange(replay.num_envs)
    shape = (replay.num_envs, *GAME.state_shape)
    replay.begin_episodes(envs, rng.integers(256, size=shape, dtype=np.uint8))
    for _ in range(replay.slots):
        replay.append(
            envs,
            actions=rng.integers(3, size=len(envs)),
            rewards=rng.normal(size=len(envs)).astype(np.float32),
            terminal=rng.random(len(envs)) < 0.01,
            ended=np.zeros(len(envs), dtype=bool),
            next_states=rng.integers(256, size=shape, dtype=np.uint8),
        )


def _learner_alone(job: Job, solver: Any) -> Callable[[], Any]:
    learner, batch = our_learner(solver=solver, device=job.device), random_batch().to(job.device)
    rates = learner.rates(AGENT_STEP)
    names = ("learning_rate", "kappa", "attack_epsilon")
    numbers = torch.tensor([float(getattr(rates, name)) for name in names])

    def step(numbers: Tensor) -> Tensor:
        return learner.step(batch, replace(rates, **dict[str, Any](zip(names, numbers.unbind(), strict=True))))["loss"]

    graphed = Graphed(step, job.device, enabled=True, generators=[learner.generator])
    return lambda: graphed(numbers)


def _kernels(step: Callable[[], Any]) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


def _played(job: Job, num_states: int) -> tuple[Policy, Tensor, str]:
    """Return a policy on the device, states uint8 [N, C, H, W] on the CPU, and the policy's file or "random".

    Without a GPU the policy is small, and both policy and states are random.
    """
    if not job.on_gpu:
        small = random_policy(replace(GAME, height=36, width=36))
        return small, torch.randint(256, (num_states, *small.state_shape), dtype=torch.uint8), "random"
    trained = [host.MAPPED_POLICY] if host.MAPPED_POLICY.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        (case,) = make_cases(Path(folder), trained, num_states, ["1 frame, dueling"])
        policy, states = case.load()
    return policy.to(job.device), states, case.weights


def maps(job: Job) -> None:
    """Measure the ablation of a state: time (engine, dense batches in float32 and TF32, captum), exactness, memory."""
    policy, states, weights = _played(job, 64 if job.on_gpu else 2)
    states = states.repeat(8, 1, 1, 1) if job.on_gpu else states
    spec, found = map_contenders.SPEC, {"weights": weights, "states": len(states)}
    options: dict[str, Any] = {"spec": spec, "engine": "incremental"}
    engine = make_engine(policy, **options, differences_only=True)
    found["states_at_once"] = getattr(engine, "states_at_once", 1)
    for name, differences_only in (("incremental", False), ("incremental_differences", True)):
        engine = make_engine(policy, **options, differences_only=differences_only)
        _note_state(job, found, name, lambda engine=engine: list(engine.ablate(states)), len(states))  # type: ignore[misc]
    found["engine_auto"] = make_engine(policy, spec=spec, differences_only=True).name
    exact, rounding_floor = map_contenders.exactness_of(policy, states[: 8 if job.on_gpu else 1], 512)
    found |= {"argmax_mismatches": exact.argmax_mismatches, "argmax_ties": exact.argmax_ties}
    found |= {"ablations_checked": exact.ablations, "rounding_floor": rounding_floor}
    ids = np.arange(len(states)) // 8

    def swept() -> None:
        workers = sweep_workers(job.device)
        sweep_maps(engine.ablate(states), episode_ids=ids, temperatures=[1.0], rounding_floor=0.0, workers=workers)

    _note_state(job, found, "with_maps", swept, len(states))
    for precision in ("float32", "tf32") if job.on_gpu else ("float32",):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        for size in (512, 2048, 7056) if job.on_gpu else (128,):
            dense = DenseEngine(policy, spec=spec, batch_size=size, skip_unchanged=False)
            work = lambda dense=dense: list(dense.ablate(states[:4]))  # noqa: E731
            _note_state(job, found, f"dense_{precision}_{size}", work, min(4, len(states)))
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    attribute = map_contenders.feature_ablation(policy, 1024 if job.on_gpu else 128)
    _note_state(job, found, "captum", lambda: attribute(states[:1].to(job.device)), 1)


def _note_state(job: Job, found: dict[str, Any], name: str, work: Callable[[], Any], states: int) -> None:
    if job.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    found[f"milliseconds_{name}"] = 1000 * seconds_of(work, job.device) / states
    if job.on_gpu:
        found[f"peak_memory_mb_{name}"] = torch.cuda.max_memory_allocated() / 2**20
    job.report(found)


def attack(job: Job) -> None:
    """Measure a step of an attacked roll-out in ms: PGD-10 with three objectives on the states of 20 episodes."""
    policy, states, _ = _played(job, ATTACKED_STATES)
    player, numbers = AttackedPlayer(policy, pgd(10), 1 / 255, 0), np.arange(len(states))
    scaled = unit_states(states.to(job.device))
    found: dict[str, Any] = {"states": len(states)}

    def eager() -> None:
        noise = StateNoise(0, numbers, numbers)
        pgd(10)(policy.for_attacks(), scaled, attack_epsilon=1 / 255, noise=noise)

    share = job.seconds / 4
    found["milliseconds_player"] = milliseconds(lambda: player(states.numpy(), numbers, numbers), job.device, share)
    job.report(found)
    found["milliseconds_eager"] = milliseconds(eager, job.device, share)
    job.report(found)


def of_host(job: Job) -> None:
    """Make the measurements for bench.cost: collecting, updates, an ablated state, a checkpoint, memory."""
    job.report(host.measure(paper_study(1, 1).trainings, job.device.type, 2048 if job.on_gpu else 128))


STAGES: dict[str, Callable[[Job], None]] = {
    "updates": updates,
    "maps": maps,
    "side_by_side": side_by_side,
    "attack": attack,
    "host": of_host,
    "training": training,
}


@errors_in_one_line()
def main() -> None:
    """Run one stage and write its results to the file `--output`; an error prints one line and exits with status 2."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_stages", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    device = choose_device(options.device)
    described = {**machine(), "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None}

    def report(found: Mapping[str, Any]) -> None:
        write_json(options.output, {**found, "machine": described})

    STAGES[options.stage](Job(device, options.seconds, report))


if __name__ == "__main__":
    main()
