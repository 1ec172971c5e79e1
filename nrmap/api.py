"""The public API: functions that map, attack, certify and play an agent.

States are uint8 [N, C, H, W] in [0, 255], as numpy arrays or torch tensors, or what `collect_states` returns.
Radii are in units where white is 1. Every function raises NrmapError, with one line, for input that it cannot
use: among others an agent that is not a fixed function of the state, and states of another type or shape.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from nrmap.ablation import AblationSpec, make_engine
from nrmap.maps.result import Maps
from nrmap.maps.sweep import sweep_maps, sweep_workers
from nrmap.play import evaluation
from nrmap.play import states as play_states
from nrmap.play.states import RolloutStates
from nrmap.policies.agent import PROBE_STATES, Agent, check_states
from nrmap.policies.network import unit_states
from nrmap.robustness.attacks import Attacked, StateNoise, attack_named
from nrmap.robustness.bounds import bounded_network
from nrmap.robustness.certify import IntervalCertifier
from nrmap.robustness.perturbations import check_attack_epsilon
from nrmap.support.errors import NrmapError, check, first_line
from nrmap.support.progress import Progress
from nrmap.support.records import Record

States = Tensor | ArrayLike | RolloutStates
BATCH_SIZE = 256


def compute_maps(
    agent: Agent,
    states: States,
    temperatures: Sequence[float] = (1.0,),
    episode_ids: ArrayLike | None = None,
    *,
    ablated_value: int = 0,
    channels: Literal["all", "each"] = "all",
    engine: Literal["auto", "incremental", "dense"] = "auto",
    memory_budget: int | None = None,
    progress: bool = True,
) -> Maps:
    """All maps of `agent` (eq. 4 to 6), summed over `states`.

    `temperatures` are those of the softmax policies behind HMAP and KL map. `episode_ids` [N] are whole
    numbers; without them all states count as one episode, and no measure has an interval. An ablated pixel
    takes the grey level `ablated_value`, in all channels at once or, with `channels="each"`, in one channel
    at a time. The engine is "auto": "incremental" for the networks that it knows, otherwise "dense", which is
    about ten times slower and says so in a warning. `memory_budget` in bytes bounds the incremental engine, by
    default to 512 MiB on a CPU and to most of the free memory on a GPU. It changes Q-values within float32
    rounding at most. Episodes and temperatures change no bit of each other.
    """
    seen = _read(agent, states)
    rollout = states if isinstance(states, RolloutStates) and episode_ids is None else None
    ids = _episode_ids(episode_ids if rollout is None else rollout.episode_ids, len(seen))
    try:
        check(not isinstance(temperatures, str), "one word")
        numbers = tuple(dict.fromkeys(float(temperature) for temperature in temperatures))
    except (NrmapError, TypeError, ValueError) as error:
        raise NrmapError(f"temperatures={temperatures!r}: expected a list of numbers") from error
    with _float32(), _shown(f"{agent.label}: maps", "states", progress) as report:
        spec = AblationSpec(ablated_value, channels)
        ablates = make_engine(agent, spec=spec, engine=engine, memory_budget=memory_budget, differences_only=True)
        maps = sweep_maps(
            ablates.ablate(seen, ids),
            episode_ids=ids,
            temperatures=numbers,
            rounding_floor=ablates.rounding_floor,
            workers=sweep_workers(agent.device),
            progress=report,
        )
    if rollout is not None:
        maps = replace(maps, players=rollout.episode_origins[maps.episode_ids])
    settings = {"ablated_value": ablated_value, "channels": channels, "engine": ablates.name}
    return Maps(maps, {"agent": agent.label, "policy_sha256": agent.sha256, "outputs": agent.outputs, **settings})


def collect_states(
    agent: Agent,
    num_states: int = 160,
    episodes: int = 16,
    *,
    run_seed: int = 0,
    num_envs: int = 16,
    progress: bool = True,
) -> RolloutStates:
    """`num_states` states spread evenly over `episodes` whole greedy episodes of an agent that has an `env`.

    The result holds `states` [N, C, H, W], `episode_ids` [N] and what replays the episodes. Equal `run_seed`s
    give equal episodes.
    """
    with _float32(), _shown(f"{agent.label}: roll-out", "steps", progress) as report:
        return play_states.collect_states(
            agent, num_states=num_states, episodes=episodes, run_seed=run_seed, num_envs=num_envs, progress=report,
        )  # fmt: skip


def attack(
    agent: Agent, states: States, attack: str = "pgd-10", epsilon: float = 1 / 255, *, seed: int = 0
) -> Attacked:
    """Attack every state inside the ℓ∞ ball of radius `epsilon` (eq. 1 to 3).

    `attack` is "noise", "fgsm" or "pgd-K" for K steps. The result holds the perturbed states, float in [0, 1],
    actions, margins and `flipped` [N], all in the states' order. An attack on a state depends on `seed`
    and its place n, not on the other states.
    """
    check(isinstance(seed, int) and seed >= 0, f"seed={seed!r}: expected a whole number, at least 0")
    find, function = attack_named(attack), agent.for_attacks()
    check_attack_epsilon(epsilon)
    seen = _read(agent, states)
    parts = []
    with _float32(), torch.enable_grad():
        for start in range(0, len(seen), BATCH_SIZE):
            some = unit_states(seen[start : start + BATCH_SIZE].to(agent.device))
            places = np.arange(start, start + len(some))
            noise = StateNoise(seed, episodes=np.zeros_like(places), steps=places)
            parts.append(find(function, some, attack_epsilon=epsilon, noise=noise))
    return Attacked(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Attacked)))


def certify(agent: Agent, states: States, epsilon: float = 1 / 255) -> Tensor:
    """Whether no point of the ℓ∞ ball of radius `epsilon` is proven to change the greedy action; bool [N].

    Interval bounds, in float64 and widened by float32's rounding, as on a CPU; a state that is not certified
    may be robust all the same. They exist for networks of Conv2d without padding, Linear, ReLU and Flatten: a
    policy from `load_policy`, or an agent around a torch.nn.Sequential.
    """
    check_attack_epsilon(epsilon)
    seen = _read(agent, states)
    certifier = IntervalCertifier(bounded_network(agent))
    proven = []
    with _float32(), torch.no_grad():
        for start in range(0, len(seen), BATCH_SIZE):
            some = seen[start : start + BATCH_SIZE].to(agent.device)
            proven.append(certifier(unit_states(some), agent(some).argmax(dim=1), epsilon))
    return torch.cat(proven)


def evaluate(
    agent: Agent,
    episodes: int = 10,
    attacks: Sequence[str] = (),
    epsilon: float = 1 / 255,
    *,
    certify_epsilons: Sequence[float] = (),
    run_seed: int = 0,
    num_envs: int = 16,
    progress: bool = True,
) -> list[Record]:
    """Returns and actions of an agent that has an `env`, over whole episodes: clean, and under each attack.

    `attacks` are names as `attack` takes them, or "greedy_worst_case", each of radius `epsilon`. With
    `certify_epsilons` the clean roll-out counts certified states at those radii. Each number is one Record,
    such as `metric="return_mean"` with its interval.
    """
    runs = tuple(evaluation.AttackRun(name, epsilon, episodes) for name in attacks)
    settings = evaluation.EvaluationSettings(
        episodes, run_seed, attack_runs=runs, certify_epsilons=tuple(certify_epsilons)
    )
    needs_proofs = bool(certify_epsilons) or evaluation.WORST_CASE in attacks
    try:  # where there are bounds, they also save the attacks on certified states
        certifier = IntervalCertifier(bounded_network(agent))
    except NrmapError:
        if needs_proofs:
            raise
        certifier = None
    with _float32(), _shown(f"{agent.label}: evaluation", "steps", progress) as report:
        return evaluation.evaluate(
            agent, settings, num_envs=num_envs, certify=certifier, progress=report,
        )  # fmt: skip


def _read(agent: Agent, states: States) -> Tensor:
    """The states as a tensor [N, C, H, W], after the agent has been checked on them."""
    check(isinstance(agent, Agent), f"agent is a {type(agent).__name__}: expected nrmap.Agent(function, …)")
    if isinstance(states, RolloutStates):
        if agent.env is not None:
            play_states.check_same_game(states, agent.env)
        states = states.states
    if not isinstance(states, Tensor):
        array = _array("states", states)
        expected = f"expected uint8 [N, {', '.join(map(str, agent.state_shape))}] in [0, 255]"
        check(array.dtype == np.uint8, f"states are {array.dtype} {list(array.shape)}: {expected}")
        # torch takes neither negative strides nor, without a warning, arrays that cannot be written.
        array = np.ascontiguousarray(array)
        states = torch.from_numpy(array if array.flags.writeable else array.copy())
    check_states(states, agent.state_shape)
    with _float32():
        agent.check(states[:PROBE_STATES].to(agent.device))
    return states


def _episode_ids(episode_ids: ArrayLike | None, num_states: int) -> NDArray[np.int64]:
    ids = np.zeros(num_states, dtype=np.int64) if episode_ids is None else _array("episode_ids", episode_ids)
    fits = ids.shape == (num_states,) and np.issubdtype(ids.dtype, np.integer)
    check(fits, f"episode_ids are {ids.dtype} {list(ids.shape)}: expected {num_states} whole numbers, one a state")
    return ids.astype(np.int64)


def _array(name: str, values: ArrayLike) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise NrmapError(f"{name} cannot be made an array: {first_line(error)}") from error


@contextmanager
def _shown(label: str, unit: str, progress: bool) -> Iterator[Callable[..., None]]:
    """The function to report progress to, `Progress.update`."""
    if progress:
        with Progress(label, unit=unit) as shown:
            yield shown.update
    else:
        yield lambda *done, **part: None


@contextmanager
def _float32() -> Iterator[None]:
    """No TensorFloat-32 on a GPU: by default it rounds the inputs of convolutions to 10 bits."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield
