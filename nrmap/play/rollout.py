"""Play whole episodes from known seeds, and replay them, also in colour."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import ANY_SEED, SeededVectorEnv, action_names
from nrmap.policies.agent import Agent
from nrmap.statistics.nested_subsets import van_der_corput
from nrmap.support.errors import NrmapError, check

# Called with the agent steps played so far and an estimate of all steps, None before the first episode ends; as
# `Progress.update`.
ProgressFn = Callable[..., None]
# For `expected_steps`: the quantile of finished lengths, and the fraction of its steps that a running episode adds.
LENGTH_QUANTILE, LEAST_ADDED = 0.75, 0.15

Bytes: TypeAlias = NDArray[np.uint8]
Ints: TypeAlias = NDArray[np.int64]
Actions: TypeAlias = NDArray[np.integer]


def no_report(done: int, total: int | None, **named: object) -> None:
    """Report no progress."""


class ActionFn(Protocol):
    """A player: a greedy policy, a policy under attack, a constant action, a recording."""

    def __call__(self, states: Bytes, episodes: Ints, steps: Ints, /) -> Actions:
        """Choose actions [n], numbers from 0, for `states`, uint8 [n, C, H, W].

        State i is step `steps[i]` of episode `episodes[i]`. Random actions should depend on
        episode and step, not on the order of calls, so that episodes do not influence each other.
        """


@dataclass(frozen=True)
class Episode:
    """One whole episode of L agent steps. Its seed and actions suffice to replay every frame."""

    seed: int
    actions: NDArray[np.uint8]  # [L]
    rewards: NDArray[np.float32]  # [L], unclipped
    terminated: bool  # the game was over
    truncated: bool  # the step limit ended it

    @property
    def length(self) -> int:
        """L, in agent steps."""
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """The undiscounted return of the unclipped rewards."""
        return float(self.rewards.sum(dtype=np.float64))


def env_of(agent: Agent) -> EnvSpec:
    """Return the agent's environment.

    Raises NrmapError if the agent has none, or one with other state shapes or numbers of actions, and as a call of the
    agent does.
    """
    spec = agent.env
    if spec is None:
        raise NrmapError(f"{agent.label} cannot play: it has no game; Agent takes one as env=EnvSpec(…)")
    takes, gives = agent.state_shape, spec.state_shape
    check(takes == gives, f"{agent.label} takes states {takes}, but those of {spec.game} are {gives}")
    actions, states = len(action_names(spec)), _first_states(spec).clone().to(agent.device)
    with torch.inference_mode():
        agent.check(states)  # anew: its layers may be in training mode since
        scored = agent(states).shape[1]
    check(scored == actions, f"{agent.label} scores {scored} actions, but {spec.game} has {actions}")
    return spec


@functools.lru_cache(maxsize=64)
def _first_states(spec: EnvSpec) -> torch.Tensor:
    """Return the first state of an episode, [1, C, H, W].

    The result is kept, because loading a game takes as long as 100 agent steps.
    """
    states, _ = SeededVectorEnv(spec, 1).begin(np.ones(1, dtype=bool), [0])
    return torch.from_numpy(states)


def greedy(policy: Agent) -> ActionFn:
    """Return a player that takes the first action of highest output."""

    @torch.inference_mode()
    def act(states: Bytes, episodes: Ints, steps: Ints) -> Actions:
        return policy(torch.from_numpy(states).to(policy.device)).argmax(dim=1).cpu().numpy()

    return act


def play(
    act: ActionFn, spec: EnvSpec, seeds: Sequence[int], *, num_envs: int, progress: ProgressFn = no_report
) -> tuple[Episode, ...]:
    """Play one whole episode for each of `seeds`, up to `num_envs` at a time, and return the episodes in this order.

    An episode does not depend on the other episodes played at the same time, except that a network may round
    differently in batches of another size. `act` sees only states of running episodes. `progress` is called after every
    step with the agent steps so far and `expected_steps`. Raises NrmapError without seeds, for `num_envs` < 1, for
    actions out of range, and where `act` does.
    """
    check(len(seeds) >= 1, "no episodes to play: expected at least one seed")
    check(num_envs >= 1, f"num_envs={num_envs}: expected at least 1")
    env = SeededVectorEnv(spec, min(num_envs, len(seeds)))
    waiting = (_Recording(number, seed) for number, seed in enumerate(seeds))
    playing: list[_Recording | None] = [next(waiting) for _ in range(env.num_envs)]
    finished: dict[int, Episode] = {}
    steps_played = 0
    states, _ = env.begin(np.ones(env.num_envs, dtype=bool), seeds[: env.num_envs])
    while len(finished) < len(seeds):
        recordings = {index: recording for index, recording in enumerate(playing) if recording is not None}
        busy = np.array(list(recordings))
        numbers = np.array([recording.number for recording in recordings.values()])
        steps = np.array([len(recording.actions) for recording in recordings.values()])
        actions = np.zeros(env.num_envs, dtype=np.int64)
        actions[busy] = act(states[busy], numbers, steps)
        transition = env.step(actions)
        states = transition.states
        for index, recording in recordings.items():
            recording.actions.append(int(actions[index]))
            recording.rewards.append(float(transition.rewards[index]))
            if transition.ended[index]:
                finished[recording.number] = Episode(
                    recording.seed,
                    np.array(recording.actions, dtype=np.uint8),
                    np.array(recording.rewards, dtype=np.float32),
                    terminated=bool(transition.terminated[index]),
                    truncated=bool(transition.truncated[index]),
                )
                playing[index] = next(waiting, None)
        if transition.ended.any() and len(finished) < len(seeds):
            following = [playing[index] for index in np.flatnonzero(transition.ended)]
            # All emulators step together, also one without an episode.
            states, _ = env.begin(transition.ended, [ANY_SEED if one is None else one.seed for one in following])
        steps_played += len(busy)
        lengths = [episode.length for episode in finished.values()]
        running = [len(recording.actions) for recording in playing if recording is not None]
        unfinished = [*running, *[0] * (len(seeds) - len(lengths) - len(running))]
        progress(steps_played, expected_steps(lengths, unfinished, spec.max_agent_steps))
    return tuple(finished[number] for number in range(len(seeds)))


@dataclass
class _Recording:
    """The part of an episode played so far."""

    number: int
    seed: int
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


def expected_steps(lengths: Sequence[int], unfinished: Sequence[int], limit: int) -> int | None:
    """Estimate the total agent steps of a roll-out; None before its first episode ends.

    `lengths` are the lengths of finished episodes, `unfinished` the steps so far of the others. Each of the latter is
    expected to last for the upper quartile of `lengths` or 115% of its steps, whichever is more, up to `limit`.
    """
    if not lengths:
        return None
    usual = float(np.quantile(lengths, LENGTH_QUANTILE))
    return sum(lengths) + round(sum(min(max(usual, (1 + LEAST_ADDED) * steps), limit) for steps in unfinished))


def even_positions(lengths: Sequence[int], num_states: int) -> list[NDArray[np.int64]]:
    """Spread `num_states` states evenly over episodes of these lengths, and return the steps taken from each episode.

    The numbers of states per episode differ by at most one. An episode of L steps is cut into n equal parts, and one
    step is taken at the same relative position φ of each part: ⌊(k + φ) L / n⌋ for k = 0 … n − 1. φ is a point of the
    van der Corput sequence plus ½, modulo 1, one point per episode, so that the episodes together cover many different
    times. Raises NrmapError for fewer states than episodes and for episodes with too few steps.
    """
    episodes = len(lengths)
    check(num_states >= 1, f"num_states={num_states}: expected at least 1")
    check(num_states >= episodes, f"num_states={num_states}: expected at least one for each of {episodes} episodes")
    positions = []
    for episode, (length, place) in enumerate(zip(lengths, van_der_corput(episodes), strict=True)):
        count = (episode + 1) * num_states // episodes - episode * num_states // episodes
        check(count <= length, f"episode {episode} has only {length} steps: cannot take {count} states from it")
        # Integer arithmetic: for n = L floating-point rounding could take a step twice.
        parts = 2 ** max(1, int(episodes).bit_length())
        offset = int((place + 0.5) % 1 * parts)
        positions.append((np.arange(count) * parts + offset) * length // (count * parts))
    return positions


def replay_states(
    spec: EnvSpec, episodes: Sequence[Episode], positions: Sequence[NDArray[np.int64]], *, num_envs: int
) -> NDArray[np.uint8]:
    """Replay `episodes` and return the states at the steps `positions[e]` of each episode e, uint8 [N, C, H, W].

    The states are in order of episode, then as in `positions[e]`. Raises NrmapError if a replayed episode differs in
    rewards or length, e.g. with another version of the emulator, and for `num_envs` < 1.
    """
    wanted = [{int(step) for step in steps} for steps in positions]
    frames: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def recorded(states: Bytes, numbers: Ints, steps: Ints) -> Actions:
        for state, episode, step in zip(states, numbers.tolist(), steps.tolist(), strict=True):
            check(step < episodes[episode].length, _replay_differs(episode, episodes[episode]))
            if step in wanted[episode]:
                frames[episode, step] = state.copy()  # a view would keep the states of all environments alive
        return np.array([episodes[e].actions[t] for e, t in zip(numbers, steps, strict=True)], dtype=np.int64)

    replayed = play(recorded, spec, [episode.seed for episode in episodes], num_envs=num_envs)
    for number, (before, after) in enumerate(zip(episodes, replayed, strict=True)):
        check(np.array_equal(before.rewards, after.rewards), _replay_differs(number, before))
    order = [(episode, int(step)) for episode, steps in enumerate(positions) for step in steps]
    return np.stack([frames[key] for key in order])


def _replay_differs(number: int, episode: Episode) -> str:
    return (
        f"replaying episode {number} (seed {episode.seed}) gives other rewards: "
        "it was recorded with other environment settings or another version of ale-py"
    )


def replay_rgb(spec: EnvSpec, seed: int, actions: ArrayLike, positions: Sequence[int]) -> NDArray[np.uint8]:
    """Replay an episode and return the colour screens at `positions`, uint8 [n, h, w, 3].

    Position t is the screen before action t. Like states, screens are max-pooled over two frames, padded, cropped
    and transposed, but not resized: most games have screens of 210 × 160. Raises NrmapError without positions, for
    positions outside the episode, for actions out of range, and if the replay ends before the last position.
    """
    from nrmap.atari.emulators import Emulator  # loads ale_py

    steps = np.asarray(actions)
    check(len(positions) >= 1, "no positions to replay: expected at least one")
    for position in positions:
        check(0 <= position < len(steps), f"position {position}: the episode has steps 0 to {len(steps) - 1}")
    height, width = Emulator(spec).ale.getScreenDims()
    env = SeededVectorEnv(replace(spec, height=height, width=width, frame_stack=1), 1, colour=True)
    states, _ = env.begin(np.ones(1, dtype=bool), [seed])  # [1, 1, H, W, 3]
    screens = {0: states[0, 0]}
    # Keep only the wanted screens: all screens of a long episode fill gigabytes.
    wanted = set(positions)
    for step in range(1, max(positions) + 1):
        transition = env.step(steps[step - 1 : step])
        check(not transition.ended[0], f"the episode of seed {seed} ends after {step} steps, before the last position")
        if step in wanted:
            screens[step] = transition.states[0, 0]
    return np.stack([screens[position] for position in positions])
