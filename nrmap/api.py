"""The public API: functions that map, attack, certify and play an agent.

States are uint8 [N, C, H, W] in [0, 255], as numpy arrays or torch tensors, or the result of `collect_states`. Radii
are on the scale [0, 1] of pixels. `progress=False` shows no progress bar on stderr. Every function raises NrmapError
with a one-line message for an argument of a wrong type or range, for states of another type or shape than the agent's
or of another game, and for an agent that fails `Agent.check`, e.g. because it is not a fixed function of the state.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from torch import Tensor

from nrmap.ablation import AblationSpec, make_engine
from nrmap.ablation.spec import GreyLevel
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
from nrmap.support.arguments import checked
from nrmap.support.errors import NrmapError, check, code_of_others
from nrmap.support.progress import Progress
from nrmap.support.records import Record
from nrmap.support.schema import Radius, Seed

States = Tensor | ArrayLike | RolloutStates
BATCH_SIZE = 256


@checked
def compute_maps(
    agent: Agent,
    states: States,
    temperatures: Sequence[float] = (1.0,),
    episode_ids: ArrayLike | None = None,
    *,
    ablated_value: GreyLevel = 0,
    channels: Literal["all", "each"] = "all",
    engine: Literal["auto", "incremental", "dense"] = "auto",
    memory_budget: Annotated[int, Field(ge=1, description="a number of bytes above 0")] | None = None,
    progress: bool = True,
) -> Maps:
    """Compute all maps of `agent` (eq. 4 to 6), summed over `states`, by ablating one pixel at a time.

    `states` are uint8 [N, C, H, W] in [0, 255] or the result of `collect_states`. `episode_ids` are integers [N]. None
    means those of `collect_states`, or one episode for any other states; then no measure has an interval. HMAP and KL
    map use softmax policies at the `temperatures`, at most 1,000 numbers above 0 and up to 10⁹. An ablated pixel is set
    to the grey level `ablated_value`, in all channels at once or, with `channels="each"`, in one channel at a time. An
    episode's maps do not depend, to the last bit, on other episodes or temperatures.

    The "incremental" engine needs a network of Conv2d, ReLU, Flatten and Linear; "dense" takes any agent and is about
    ten times slower. "auto" is incremental where possible (on a GPU the faster one), else dense with a logged warning.
    `memory_budget` in bytes limits the incremental engine and changes Q-values by float32 rounding at most. None means
    512 MiB on a CPU and 80% of the free memory on a GPU.

    Raises NrmapError for wrong arguments, states or agents, see the module. Also raises it for weights or Q-values that
    are NaN or infinite, for a temperature so small that Q/T overflows, for an agent that `engine="incremental"` cannot
    handle, and for a memory budget too small for one state.
    """
    seen = _read(agent, states)
    rollout = states if isinstance(states, RolloutStates) and episode_ids is None else None
    ids = _episode_ids(episode_ids if rollout is None else rollout.episode_ids, len(seen))
    order = np.argsort(ids, kind="stable")  # the states of an episode are ablated together
    seen, ids = (seen, ids) if (np.diff(order) == 1).all() else (seen[torch.from_numpy(order)], ids[order])
    with _float32(), _shown(f"{agent.label}: maps", "states", progress) as report:
        spec = AblationSpec(ablated_value, channels)
        ablates = make_engine(agent, spec=spec, engine=engine, memory_budget=memory_budget, differences_only=True)
        maps = sweep_maps(
            ablates.ablate(seen, ids),
            episode_ids=ids,
            temperatures=tuple(dict.fromkeys(map(float, temperatures))),
            rounding_floor=ablates.rounding_floor,
            workers=sweep_workers(agent.device),
            progress=report,
        )
    if rollout is not None:
        maps = replace(maps, players=rollout.episode_origins[maps.episode_ids])
    settings = {"ablated_value": ablated_value, "channels": channels, "engine": ablates.name}
    of_states = {"states_digest": hashlib.sha256(seen.cpu().numpy().tobytes()).hexdigest()}
    metadata = {"agent": agent.label, "policy_sha256": agent.sha256, "outputs": agent.outputs, **of_states, **settings}
    return Maps(maps, metadata)


@checked
def collect_states(
    agent: Agent,
    num_states: int = 160,
    episodes: int = 16,
    *,
    run_seed: Seed = 0,
    num_envs: int = 16,
    progress: bool = True,
) -> RolloutStates:
    """Play `episodes` whole greedy episodes of an agent that has an `env`, and keep `num_states` evenly spread states.

    The result holds `states`, uint8 [N, C, H, W], `episode_ids` [N], and `episodes`, whose seeds and actions replay
    them. Equal `run_seed`s give equal episodes; `num_envs` are played at a time. Raises NrmapError for an agent without
    an `env` or that does not fit it, for fewer states than episodes, and if an episode has fewer steps than states to
    take from it.
    """
    with _float32(), _shown(f"{agent.label}: roll-out", "steps", progress) as report:
        return play_states.collect_states(
            agent, num_states=num_states, episodes=episodes, run_seed=run_seed, num_envs=num_envs, progress=report,
        )  # fmt: skip


@checked
def attack(
    agent: Agent, states: States, attack: str = "pgd-10", epsilon: Radius = 1 / 255, *, seed: Seed = 0
) -> Attacked:
    """Perturb every state within the ℓ∞ ball of radius `epsilon` to flip the greedy action (eq. 1 to 3).

    `states` are uint8 [N, C, H, W] in [0, 255] or the result of `collect_states`; `epsilon` is on the scale [0, 1].
    `attack` is "noise", "fgsm" or "pgd-K" for K steps, 1 to 10,000. The result holds `perturbed`, float [N, C, H, W] in
    [0, 1], and actions, margins and `flipped`, each [N]. A margin is max_{a≠a*} Q(s', a) − Q(s', a*), which the attack
    raises. The random numbers for state n depend only on `seed` and n.

    Raises NrmapError for wrong arguments, states or agents, see the module. Also raises it for an unknown attack, for
    `input_scale=None`, for hooks or a `forward` of the agent itself, and for outputs without a gradient. On a CPU it
    also raises it for NaN or infinite outputs.
    """
    find, function = attack_named(attack), agent.for_attacks()
    seen = _read(agent, states)
    parts = []
    with _float32():
        for start in range(0, len(seen), BATCH_SIZE):
            some = unit_states(seen[start : start + BATCH_SIZE].to(agent.device))
            places = np.arange(start, start + len(some))
            noise = StateNoise(seed, episodes=np.zeros_like(places), steps=places)
            parts.append(find(function, some, attack_epsilon=epsilon, noise=noise))
    return Attacked(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Attacked)))


@checked
def certify(agent: Agent, states: States, epsilon: Radius = 1 / 255) -> Tensor:
    """Prove for each state, where possible, that no point of the ℓ∞ ball of radius `epsilon` changes the greedy action.

    The result is bool [N], True where there is a proof. A state without one may be robust all the same. `states` and
    `epsilon` are as for `attack`. The proof uses interval bounds in float64, widened by the rounding of float32 on a
    CPU.

    Raises NrmapError for wrong arguments, states or agents, see the module, and for `input_scale=None`. Also raises it
    unless the agent is a loaded or imported policy, except C51, or wraps a torch.nn.Sequential of Conv2d without
    padding, groups or dilation, Linear, ReLU, Flatten, Identity and Dropout that ends in Linear. Subclasses of these
    and layers with hooks, as of pruning, are refused: their bounds are not known. So are networks of several hundred
    actions.
    """
    seen = _read(agent, states)
    certifier = IntervalCertifier(bounded_network(agent))
    proven = []
    with _float32(), torch.no_grad():
        for start in range(0, len(seen), BATCH_SIZE):
            some = seen[start : start + BATCH_SIZE].to(agent.device)
            proven.append(certifier(unit_states(some), agent(some).argmax(dim=1), epsilon))
    return torch.cat(proven)


@checked
def evaluate(
    agent: Agent,
    episodes: int = 10,
    attacks: Sequence[str] = (),
    epsilon: Radius = 1 / 255,
    *,
    certify_epsilons: Sequence[float] = (),
    run_seed: Seed = 0,
    num_envs: int = 16,
    progress: bool = True,
) -> list[Record]:
    """Play whole episodes of an agent that has an `env`, clean and under each attack, and measure returns and actions.

    `attacks` are names as for `attack`, or "greedy_worst_case", each at radius `epsilon`. Each measured number is one
    Record, such as `metric="return_mean"` with its interval. The clean roll-out also gives the fraction of states
    certified at each of `certify_epsilons`, radii on the scale [0, 1]. These and "greedy_worst_case" need an agent that
    `certify` accepts. Equal `run_seed`s give equal episodes; `num_envs` are played at a time.

    Raises NrmapError for an agent without an `env` or that does not fit it, where `attack` refuses the agent or an
    attack, and where `certify` refuses an agent that needs proofs.
    """
    runs = tuple(evaluation.AttackRun(name, epsilon, episodes) for name in attacks)
    settings = evaluation.EvaluationSettings(
        episodes, run_seed, attack_runs=runs, certify_epsilons=tuple(certify_epsilons)
    )
    needs_proofs = bool(certify_epsilons) or evaluation.WORST_CASE in attacks
    try:  # with bounds, certified states need no attack, which saves time
        certifier = IntervalCertifier(bounded_network(agent))
    except NrmapError:
        if needs_proofs:
            raise
        certifier = None
    with _float32(), _shown(f"{agent.label}: evaluation", "steps", progress) as report:
        return evaluation.evaluate(agent, settings, num_envs=num_envs, certify=certifier, progress=report)


def _read(agent: Agent, states: States) -> Tensor:
    """Check `agent` on `states`, and return these as a uint8 tensor [N, C, H, W]; NrmapError if either is unfit."""
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
    with code_of_others("states cannot be read"):
        with torch._C.DisableTorchFunctionSubclass():  # a subclass's own code runs in no operation below
            states = states.as_subclass(Tensor)
        check_states(states, agent.state_shape)
        with _float32():
            agent.check(states[:PROBE_STATES].to(agent.device))
    return states


def _episode_ids(episode_ids: ArrayLike | None, num_states: int) -> NDArray[np.int64]:
    ids = np.zeros(num_states, dtype=np.int64) if episode_ids is None else _array("episode_ids", episode_ids)
    fits = ids.shape == (num_states,) and ids.dtype.kind in "iu" and bool((ids <= np.iinfo(np.int64).max).all())
    expected = f"expected {num_states} whole numbers below 2⁶³, one a state"
    check(fits, f"episode_ids are {ids.dtype} {list(ids.shape)}: {expected}")
    return ids.astype(np.int64)


def _array(name: str, values: ArrayLike) -> NDArray[Any]:
    check(not isinstance(values, np.ma.MaskedArray), f"{name} are a masked array: expected one without a mask")
    with code_of_others(f"{name} cannot be made an array"):
        return np.asarray(values)


@contextmanager
def _shown(label: str, unit: str, progress: bool) -> Iterator[Callable[..., None]]:
    """Yield the function that shows progress, `Progress.update`, or without `progress` one that does nothing."""
    if progress:
        with Progress(label, unit=unit) as shown:
            yield shown.update
    else:
        yield lambda *done, **part: None


@contextmanager
def _float32() -> Iterator[None]:
    """Use deterministic GPU convolutions without TensorFloat-32, which by default rounds their inputs to 10 bits.

    The caller's autocast and float32 matmul precision, which can round as much, are off in the block, and gradients are
    on, also inside torch.no_grad.
    """
    on_gpu = torch.cuda.is_available()  # elsewhere these flags change nothing but what other threads see
    with (
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False) if on_gpu else nullcontext(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
        torch.inference_mode(False),  # turns gradients on, also inside torch.no_grad
        _highest_matmul_precision(),
    ):
        yield


@contextmanager
def _highest_matmul_precision() -> Iterator[None]:
    """Undo the caller's `torch.set_float32_matmul_precision` in the block."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller set it for each backend on its own, which torch does not mix with this function
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
