"""Ablate the pixels of a state one at a time, and give the Q-values of each ablated state Z_ij(s) of eq. 4 and 5."""

import logging
from typing import Literal

import torch

from nrmap.ablation.dense import DenseEngine
from nrmap.ablation.incremental import IncrementalEngine
from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.recording import DrawsRandomNumbers, NotTraceable
from nrmap.ablation.rounding import agrees, synthetic_states
from nrmap.ablation.spec import AblatedChunk, AblationSpec, Engine
from nrmap.ablation.trace import trace
from nrmap.policies.agent import Agent
from nrmap.support.errors import NrmapError, check, first_line

__all__ = ["AblatedChunk", "AblationSpec", "Engine", "make_engine"]

log = logging.getLogger(__name__)


def make_engine(
    agent: Agent,
    *,
    spec: AblationSpec,
    engine: Literal["auto", "incremental", "dense"] = "auto",
    memory_budget: int | None = None,
    differences_only: bool = False,
) -> Engine:
    """Make the engine that ablates states of `agent`, on the agent's device.

    "incremental" copies the agent's current weights and propagates changes through networks of convolutions, ReLU,
    Flatten and Linear, see docs/ablation.md. "dense" runs any agent on every ablated state. "auto" is incremental if
    possible. On a GPU it times both engines briefly and takes the faster one. Where only "dense" is possible, "auto"
    logs a warning with the reason.

    The incremental engine ablates as many states at a time as fit into `memory_budget` bytes. None means 512 MiB on a
    CPU and 80% of the free memory on a GPU. With `differences_only` it may shift all Q-values of an ablated state by
    one number, which changes no arg max, softmax, margin or map. It then skips V(s) of a dueling network, half of the
    hidden layer. The dense engine uses neither argument.

    Raises NrmapError for weights that are NaN or infinite, for an agent that draws random numbers, and as a call of
    `agent` does. Raises NrmapError for an agent that `engine="incremental"` cannot handle. Raises NrmapError for a
    memory budget that is too small for the incremental engine to ablate one state.
    """
    for name, parameter in agent.named_parameters():
        check(bool(parameter.isfinite().all()), f"weight {name} of {agent.label} holds NaN or infinite values")
    parts, reason = _parts(agent)
    if engine == "incremental" and parts is None:
        raise NrmapError(f"engine=incremental cannot ablate {agent.label}: {reason}; use engine=dense or engine=auto")
    if parts is not None and engine != "dense":
        incremental = IncrementalEngine(
            agent, parts, spec=spec, memory_budget=memory_budget, differences_only=differences_only
        )
        if engine == "incremental" or agent.device.type == "cpu":
            return incremental
        return faster(incremental, DenseEngine(agent, spec=spec, exact=parts.double()))
    if engine == "auto":
        log.warning(
            "%s: every ablated state goes through the whole network, about ten times slower than networks that the "
            "incremental engine knows: %s (docs/ablation.md)", agent.label, reason,
        )  # fmt: skip
    return DenseEngine(agent, spec=spec, exact=None if parts is None else parts.double())


def faster(incremental: IncrementalEngine, dense: DenseEngine) -> Engine:
    """Return the engine with the smaller estimate of the time per state, and log both estimates."""
    seconds = {engine.name: engine.seconds_per_state() for engine in (incremental, dense)}
    log.info("engine=auto: %s", ", ".join(f"{1000 * each:.2f} ms a state {name}" for name, each in seconds.items()))
    return incremental if seconds[incremental.name] <= seconds["dense"] else dense


@torch.no_grad()
def _parts(agent: Agent) -> tuple[NetworkParts | None, str]:
    """Split the agent's network into parts, and return them with an empty reason.

    Returns None and the reason if the network cannot be split. Raises NrmapError if the outputs are random.
    """
    states = synthetic_states(agent.state_shape, agent.device)
    outputs = agent(states)
    if outputs.dtype == torch.float64:
        return None, "its outputs are float64, and its arithmetic is float32"
    try:
        parts = trace(agent.forward, states[1:])  # another number of states than in the comparison below
        same = agrees(parts.q_values(states), outputs.float())
    except DrawsRandomNumbers as error:
        raise NrmapError(f"{agent.label} is no fixed function of the state: {error}") from error
    except NotTraceable as error:
        return None, str(error)
    except RuntimeError as error:  # of an operation that is replayed with other sizes or types
        return None, f"its operations cannot be replayed: {first_line(error)}"
    return (parts, "") if same else (None, "the recorded network and the agent give different outputs")
