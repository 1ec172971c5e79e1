"""Ablate every pixel: the Q-values of all ablated states Z_ij(s) in eq. 4 and 5."""

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from nrmap.ablation.dense import DenseEngine
from nrmap.ablation.incremental import IncrementalEngine
from nrmap.ablation.operations import NotTraceable
from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.rounding import agrees, synthetic_states
from nrmap.ablation.spec import AblatedChunk, AblationSpec, Engine
from nrmap.ablation.trace import trace
from nrmap.policies.agent import Agent
from nrmap.support.errors import NrmapError, check, unknown_choice

__all__ = ["ENGINES", "AblatedChunk", "AblationSpec", "Engine", "make_engine"]

ENGINES = ("auto", "incremental", "dense")
DEFAULT_MEMORY_BUDGET = 512 * 2**20


def make_engine(
    policy: Callable[[Tensor], Tensor],
    *,
    spec: AblationSpec,
    engine: Literal["auto", "incremental", "dense"] = "auto",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    state_shape: tuple[int, int, int] | None = None,
    differences_only: bool = False,
) -> Engine:
    """Make the engine that ablates states of `policy`. It copies the policy's current weights.

    `policy` maps uint8 states [N, C, H, W] to Q-values or logits [N, A]; `state_shape` (C, H, W)
    defaults to that of an `Agent`. "incremental" propagates changes through networks of Conv2d,
    ReLU, Flatten and Linear (see docs/ablation.md). "dense" runs any policy on every ablated
    state. "auto" is incremental if possible, and otherwise dense with a warning that gives the
    reason. The incremental engine works on the device of the policy's parameters and ablates as
    many states at a time as fit into `memory_budget` bytes. With `differences_only` all Q-values
    of an ablated state may be off by the same number, which changes no arg max, softmax, margin
    or map. A dueling network then skips V(s), half of the work.

    Raises NrmapError for an unknown engine, for weights that are NaN or infinite, for a policy
    that `engine="incremental"` cannot handle, and for a memory budget below one state's need.
    """
    if engine not in ENGINES:
        raise unknown_choice("engine", engine, ENGINES)
    if state_shape is None:
        if not isinstance(policy, Agent):
            raise NrmapError(f"state_shape: expected (C, H, W), as {type(policy).__name__} is no Agent")
        state_shape = policy.state_shape
    device = _check_weights(policy)
    parts, reason = _parts(policy, state_shape, device)
    if engine == "incremental" and parts is None:
        raise NrmapError(f"engine=incremental cannot ablate this policy: {reason}; use engine=dense or engine=auto")
    if parts is not None and engine != "dense":
        return IncrementalEngine(
            policy, parts,
            spec=spec, state_shape=state_shape, memory_budget=memory_budget, differences_only=differences_only,
        )  # fmt: skip
    if engine == "auto":
        warnings.warn(f"this policy is ablated in dense batches, about ten times slower: {reason}", stacklevel=2)
    return DenseEngine(
        policy,
        spec=spec,
        state_shape=state_shape,
        device=device,
        exact=None if parts is None else parts.double(),
    )


def _check_weights(policy: object) -> torch.device:
    """Return the device of the policy's parameters: the CPU for a policy without any."""
    if not isinstance(policy, nn.Module):
        return torch.device("cpu")
    for name, parameter in policy.named_parameters():
        check(bool(parameter.isfinite().all()), f"weight {name} of the policy holds NaN or infinite values")
    return next((parameter.device for parameter in policy.parameters()), torch.device("cpu"))


@torch.no_grad()
def _parts(
    policy: Callable[[Tensor], Tensor], state_shape: tuple[int, int, int], device: torch.device
) -> tuple[NetworkParts | None, str]:
    """Return the traced policy, or None and the reason why it cannot be traced."""
    try:
        parts = trace(policy)
    except NotTraceable as error:
        return None, str(error)
    states = synthetic_states(state_shape, device)
    if not agrees(parts.q_values(states), policy(states).float()):
        return None, "the network traced by torch.fx and the policy give different Q-values"
    return parts, ""
