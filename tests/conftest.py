"""Shared by all tests: one torch thread, emulators, and the smallest training settings that still do everything."""

import atexit
import shutil
import sys
from collections import defaultdict
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from example_outputs import SMALL, write_example
from matplotlib.figure import Figure
from toy_policies import FREEWAY, toy_policy

from nrmap.atari import envs
from nrmap.atari.env_spec import EnvSpec
from nrmap.learning.learner import LearnerSpec
from nrmap.learning.replay import ReplaySpec
from nrmap.learning.settings import ExplorationSpec, TrainSettings
from nrmap.learning.state_adversarial import RegulariserSpec

torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.manual_seed(0)  # what a test draws does not depend on the tests before it


IDLE: defaultdict[Any, list[Any]] = defaultdict(list)
atexit.register(IDLE.clear)


class KeptVectorEnv:
    """ale-py's vector environment, kept for the next that wants an equal one: to make one takes 0.2 s an emulator."""

    make = staticmethod(envs._vector_env)
    in_a_step = True  # also one that could not be made is not kept

    def __init__(self, spec: EnvSpec, num_envs: int, *, colour: bool) -> None:
        self.idle = IDLE[spec, num_envs, colour]
        self.env = self.idle.pop() if self.idle else self.make(spec, num_envs, colour=colour)
        self.ale, self.reset, self.in_a_step = self.env.ale, self.env.reset, False

    def send(self, actions: np.ndarray) -> None:
        self.in_a_step = True
        self.env.send(actions)

    def recv(self) -> Any:
        step = self.env.recv()
        self.in_a_step = False
        return step

    def __del__(self) -> None:
        if not self.in_a_step:
            self.idle.append(self.env)


envs._vector_env = KeptVectorEnv  # `begin` loads the game again, so nothing of earlier episodes is left

# The same examples every time, and no deadline: how long one takes depends on what else the machine does.
hypothesis.settings.register_profile("predictable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("fuzz", max_examples=2_000, deadline=None)  # of `make test-fuzz`
hypothesis.settings.load_profile("predictable")

# The smallest screen on which the Nature convolutions fit.
TINY_SIDE = 36

# To begin an episode costs the emulator as much as 100 steps of it, so tests have few of them.
TINY = TrainSettings(
    env=EnvSpec("Freeway", TINY_SIDE, TINY_SIDE, max_agent_steps=33), method="ddqn", seed=3, steps=120, num_envs=2,
    steps_per_update=2, warm_up_steps=30, dueling=True, clip_rewards=True, life_loss_ends_return=True,
    exploration=ExplorationSpec(epsilon_initial=1.0, epsilon_final=0.1, decay_steps=80, env_spread=1.0, max_repeat=8),
    # 25 slots an environment: the ring goes round more than twice.
    replay=ReplaySpec(capacity=50, n_step=3, discount=0.95, priority_exponent=0.5),
    learner=LearnerSpec(
        batch_size=8, learning_rate=1e-3, learning_rate_final=1e-4, decay_from=0.5, adam_epsilon=1e-6,
        gradient_clip=0.0, target_update_period=7, double_q=True,
    ),
    regulariser=None,
    parent=None,
)  # fmt: skip

TINY_REGULARISER = RegulariserSpec(
    kappa=0.1, hinge=1.0, hinge_reduction="batch_sum", attack_epsilon=0.05, ramp_begin=0, ramp_steps=60, pgd_steps=2,
    pgd_step_fraction=0.5,
)  # fmt: skip


def changed(settings: TrainSettings, **changes: Any) -> TrainSettings:
    """`settings` with fields replaced; a dict changes fields of a part: `replay={"n_step": 1}`."""
    values = {
        name: replace(getattr(settings, name), **change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return replace(settings, **values)


@pytest.fixture(scope="session")
def tiny_settings():
    """`tiny_settings(env={"game": "Breakout"}, seed=1)`: a run of a second whose episodes end all the time."""
    return lambda **changes: changed(TINY, **changes)


@pytest.fixture(scope="session")
def tiny_regulariser():
    """`tiny_regulariser(kappa=0.0)`: PGD-2 with a radius large enough to matter on an untrained network."""
    return lambda **changes: replace(TINY_REGULARISER, **changes)


def same_states(one: Any, two: Any) -> None:
    if isinstance(one, dict | list | tuple):
        assert isinstance(two, dict | list | tuple)
        assert len(one) == len(two)
        for key in one if isinstance(one, dict) else range(len(one)):
            same_states(one[key], two[key])
        return
    assert type(one) is type(two)
    if isinstance(one, np.ndarray | torch.Tensor):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        if isinstance(one, torch.Tensor):
            one, two = (each.cpu().float() if each.dtype == torch.bfloat16 else each.cpu() for each in (one, two))
        assert np.asarray(one).tobytes() == np.asarray(two).tobytes()
    else:
        assert one == two


@pytest.fixture(scope="session")
def assert_same():
    """`assert_same(one, two)`: nested states equal in types, shapes and bits."""
    return same_states


@pytest.fixture(scope="session")
def outputs(tmp_path_factory, tiny_settings):
    folder = tmp_path_factory.mktemp("report") / "outputs"
    write_example(folder, tiny_settings(), SMALL)
    return folder


@pytest.fixture
def copied(tmp_path, outputs):
    """A copy of `outputs` for a test to change."""
    return shutil.copytree(outputs, tmp_path / "outputs")


@pytest.fixture(scope="session")
def toy():
    return toy_policy(FREEWAY)


@pytest.fixture
def ended(monkeypatch, capsys):
    """`ended(main, *arguments)`: the exit status, the output and the errors of a command that ends by SystemExit."""

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def ax():
    return Figure().subplots()
