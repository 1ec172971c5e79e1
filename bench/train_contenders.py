"""Contenders of the training benchmark: this project's loop and update, and rivals with the same algorithm."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.paired import Work
from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.games import rom_id
from nrmap.learning.double_dqn import double_q_targets, td_loss
from nrmap.learning.learner import Learner, LearnerSpec
from nrmap.learning.replay import Batch, ReplaySpec
from nrmap.learning.settings import ExplorationSpec, TrainSettings
from nrmap.learning.state_adversarial import RegulariserSpec, Solver, hinge_loss
from nrmap.policies.network import NetworkSpec, QNetwork, unit_states
from nrmap.robustness.perturbations import other_action_margin, project, random_start
from nrmap.support.runtime import choose_precision, keep_freed_memory
from train.trainer import Trainer

GAME = EnvSpec("Freeway", 84, 84)
CPU = torch.device("cpu")
ACTIONS = 3
BATCH_SIZE = 32
STEPS_PER_UPDATE = 4
WARM_UP_STEPS = 512
REPLAY_FRAMES = 20_000
TARGET_UPDATE_PERIOD = 500  # updates
EPSILON = 0.05
ATTACK_EPSILON, KAPPA, HINGE, PGD_STEPS = 1 / 255, 0.005, 1.0, 5
MATRIX_SIDE = 2048
# The quoted ratio uses the number of environments of scale=quick.
HEADLINE_ENVS = 16
FOREVER = 10**9

LEARNER = LearnerSpec(
    batch_size=BATCH_SIZE,
    learning_rate=1e-4,
    learning_rate_final=1e-4,
    decay_from=1.0,
    adam_epsilon=1e-8,
    gradient_clip=10.0,
    target_update_period=TARGET_UPDATE_PERIOD,
    double_q=False,
)


def our_loop(num_envs: int, precision: str) -> Work:
    """Make the work of our training loop with the algorithm of stable-baselines3's DQN: plain network, uniform replay.

    A unit is an agent step. `precision`: see `choose_precision`.
    """
    keep_freed_memory()
    settings = TrainSettings(
        env=GAME,
        method="ddqn",
        seed=0,
        steps=FOREVER,
        num_envs=num_envs,
        steps_per_update=STEPS_PER_UPDATE,
        warm_up_steps=WARM_UP_STEPS,
        dueling=False,
        clip_rewards=True,
        life_loss_ends_return=False,
        exploration=ExplorationSpec(
            epsilon_initial=EPSILON, epsilon_final=EPSILON, decay_steps=1, env_spread=0.0, max_repeat=1
        ),
        replay=ReplaySpec(REPLAY_FRAMES, n_step=1, discount=0.99, priority_exponent=0.0),
        learner=LEARNER,
        regulariser=None,
        parent=None,
    )
    trainer = Trainer(settings, device=CPU, precision=choose_precision(precision, CPU))
    iterations = trainer.run()

    def run(agent_steps: int) -> int:
        begin = trainer.agent_step
        while trainer.agent_step - begin < agent_steps:
            next(iterations)
        trainer.metrics()
        return trainer.agent_step - begin

    run(WARM_UP_STEPS + 16 * STEPS_PER_UPDATE)
    return Work(run)


def stable_baselines3_loop(num_envs: int) -> Work:
    """Make the work of stable-baselines3's DQN on ale-py's emulators, its fastest setup; a unit is an agent step."""
    model = DQN(
        "CnnPolicy",
        NativeAtari(GAME, num_envs),
        learning_rate=LEARNER.learning_rate,
        buffer_size=REPLAY_FRAMES,
        learning_starts=WARM_UP_STEPS,
        batch_size=BATCH_SIZE,
        gamma=0.99,
        train_freq=(max(STEPS_PER_UPDATE // num_envs, 1), "step"),
        gradient_steps=max(num_envs // STEPS_PER_UPDATE, 1),
        target_update_interval=TARGET_UPDATE_PERIOD * STEPS_PER_UPDATE,
        exploration_initial_eps=EPSILON,
        exploration_final_eps=EPSILON,
        max_grad_norm=LEARNER.gradient_clip,
        seed=0,
        device="cpu",
    )

    def run(agent_steps: int) -> int:
        begin = model.num_timesteps
        model.learn(agent_steps, reset_num_timesteps=False, log_interval=FOREVER)
        return model.num_timesteps - begin

    run(WARM_UP_STEPS + 16 * STEPS_PER_UPDATE)
    return Work(run)


def our_update(solver: Solver | None, precision: str) -> Work:
    """Make the work of `Learner` updates on a dueling network: SA-DDQN with `solver`, or DDQN if that is None."""
    keep_freed_memory()
    learner, batch = our_learner(solver=solver, precision=choose_precision(precision, CPU)), random_batch()
    return _updates(lambda: learner.update(batch, agent_step=FOREVER))


def plain_update(keep_memory: bool) -> Work:
    """Make the work of updates of a plain SA-DDQN; `keep_memory` uses our allocator settings."""
    if keep_memory:
        keep_freed_memory()
    learner, batch = PlainLearner(), random_batch()
    return _updates(lambda: learner.update(batch))


def matrix_product(dtype: torch.dtype = torch.float32) -> Work:
    """Make the work of products of two square matrices of `dtype`, whose rate is the machine's peak with torch."""
    one, two = torch.randn(2, MATRIX_SIDE, MATRIX_SIDE).to(dtype)
    result = torch.empty(MATRIX_SIDE, MATRIX_SIDE, dtype=dtype)

    def run(amount: int) -> int:
        for _ in range(amount):
            torch.mm(one, two, out=result)
        return amount

    run(1)
    return Work(run, operations=2.0 * MATRIX_SIDE**3)


def _updates(update: Callable[[], Any]) -> Work:
    with FlopCounterMode(display=False) as counter:
        update()

    def run(amount: int) -> int:
        for _ in range(amount):
            update()
        return amount

    run(3)
    return Work(run, operations=float(counter.get_total_flops()))


def our_learner(
    *, solver: Solver | None, precision: torch.dtype = torch.float32, device: torch.device = CPU
) -> Learner:
    """Make a learner with fixed random weights: SA-DDQN with `solver` (full radius from step 1), or DDQN if None."""
    regulariser = RegulariserSpec(
        kappa=KAPPA,
        hinge=HINGE,
        hinge_reduction="batch_sum",
        attack_epsilon=ATTACK_EPSILON,
        ramp_begin=0,
        ramp_steps=1,
        pgd_steps=PGD_STEPS,
        pgd_step_fraction=1 / PGD_STEPS,
    )
    if solver == "ibp":
        regulariser = replace(regulariser, solver="ibp", pgd_steps=0, pgd_step_fraction=0.0)
    return Learner(
        online=_network().to(device),
        spec=replace(LEARNER, double_q=True, gradient_clip=0.0),
        regulariser=None if solver is None else regulariser,
        total_steps=2 * FOREVER,
        generator=torch.Generator(device).manual_seed(1),
        precision=precision,
    )


class PlainLearner:
    """A straightforward SA-DDQN: PGD with full backward passes, default memory layout, default Adam."""

    def __init__(self) -> None:
        self.online = _network().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.target_network = _network().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.optimiser = torch.optim.Adam(self.online.parameters(), lr=LEARNER.learning_rate, eps=LEARNER.adam_epsilon)
        self.generator = torch.Generator().manual_seed(1)
        self.updates = 0

    def update(self, batch: Batch) -> Tensor:
        """Make one update; return the loss."""
        states, next_states = unit_states(batch.s_tm1), unit_states(batch.s_t)  # [B, 1, H, W]
        targets = double_q_targets(
            online=self.online,
            target_network=self.target_network,
            s_t=next_states,
            r_t=batch.r_t,
            discount_t=batch.discount_t,
        )
        with torch.no_grad():
            a_star = self.online(states).argmax(1)  # [B]
        perturbed = random_start(states, ATTACK_EPSILON, self.generator)
        for _ in range(PGD_STEPS):
            point = perturbed.detach().requires_grad_()
            other_action_margin(self.online(point), a_star).sum().backward()
            assert point.grad is not None
            moved = point.detach() + ATTACK_EPSILON / PGD_STEPS * point.grad.sign()
            perturbed = project(moved, states, ATTACK_EPSILON)
        td, _ = td_loss(q_tm1=self.online(states), a_tm1=batch.a_tm1, targets=targets, weights=batch.weights)
        margins = other_action_margin(self.online(perturbed), a_star)
        loss = td + KAPPA * hinge_loss(margins, hinge=HINGE, reduction="batch_sum")
        self.optimiser.zero_grad()  # also clears the gradients of the attack
        loss.backward()
        self.optimiser.step()
        self.updates += 1
        if self.updates % TARGET_UPDATE_PERIOD == 0:
            self.target_network.load_state_dict(self.online.state_dict())
        return loss.detach()


def _network() -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(NetworkSpec(*GAME.state_shape, ACTIONS))


def random_batch(batch_size: int = BATCH_SIZE) -> Batch:
    """Return a batch of random states, none of them terminal; equal for every call."""
    rng = np.random.default_rng(0)
    states = rng.integers(256, size=(2, batch_size, *GAME.state_shape), dtype=np.uint8)
    return Batch(
        s_tm1=torch.from_numpy(states[0]),
        a_tm1=torch.from_numpy(rng.integers(ACTIONS, size=batch_size)),
        r_t=torch.zeros(batch_size),
        discount_t=torch.full((batch_size,), 0.99),
        s_t=torch.from_numpy(states[1]),
        weights=torch.ones(batch_size),
        indices=np.arange(batch_size),
    )


class NativeAtari(VecEnv):
    """ale-py's vector environment for stable-baselines3; it resets ended episodes within the step."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._env = AtariVectorEnv(
            rom_id(spec.game),
            num_envs,
            img_height=spec.height,
            img_width=spec.width,
            stack_num=spec.frame_stack,
            frameskip=spec.frame_skip,
            noop_max=spec.noop_max,
            max_num_frames_per_episode=spec.max_agent_steps * spec.frame_skip,
            reward_clipping=True,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        states = gymnasium.spaces.Box(0, 255, spec.state_shape, np.uint8)
        super().__init__(num_envs, states, self._env.single_action_space)

    def reset(self) -> np.ndarray:
        """Begin new episodes; return their first states, uint8 [E, C, H, W]."""
        states, _ = self._env.reset(seed=0)
        return states

    def step_async(self, actions: np.ndarray) -> None:
        """Begin a step of all environments with `actions` [E]."""
        self._env.send(np.asarray(actions, dtype=np.int64))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Wait for the step; return states uint8 [E, C, H, W], rewards [E], flags [E] of ended episodes, and infos.

        The info of an environment whose episode ended has the last state of that episode.
        """
        states, rewards, terminated, truncated, info = self._env.recv()
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for env in np.flatnonzero(ended):
            infos[env] = {"terminal_observation": info["final_obs"][env], "TimeLimit.truncated": bool(truncated[env])}
        return states, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        """Do nothing: the emulators end with the process."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """None for each environment: native emulators have no attributes."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Raise AttributeError: native emulators have no attributes."""
        raise AttributeError(f"native emulators have no attribute {attr_name}")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Raise AttributeError: native emulators have no methods."""
        raise AttributeError(f"native emulators have no method {method_name}")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """False for each environment: native emulators have no Python wrappers."""
        return [False] * self.num_envs
