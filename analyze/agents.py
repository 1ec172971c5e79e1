"""The agent that `policy=` names: a policy file, another program's file, or a Python function."""

import hashlib
import importlib
import inspect
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from conf.schema import AnalyzeKeys
from nrmap.play.given_states import read_states
from nrmap.play.imports import ensure_imported
from nrmap.policies.agent import Agent, is_dense
from nrmap.policies.formats import FORMATS, convert
from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError, check, code_of_others

log = logging.getLogger(__name__)

PYTHON = "py"


def named_agent(keys: AnalyzeKeys, given: Sequence[str], device: torch.device) -> Agent:
    """Load the agent that the key `policy` names, on `device`; first convert another program's file.

    `given`: see `import_file`. Raises NrmapError as `python_agent`, `import_file` and `load_policy` do.
    """
    reference = str(keys.policy)
    kind, colon, _ = reference.partition(":")
    if kind == PYTHON:
        return python_agent(reference, keys.states_from, keys.seed, device)
    is_foreign = kind in FORMATS or (colon and kind.isidentifier() and not Path(reference).exists())
    return load_policy(import_file(keys, given) if is_foreign else Path(reference), device)


def import_file(keys: AnalyzeKeys, given: Sequence[str]) -> Path:
    """Convert the file of another program that the key `policy` names; return the path of the new policy file.

    The first import plays 3 clean episodes and writes the new file. A later import returns that file unchanged. Both
    log the mean return, as a warning if it is far below `keys.expect`, see `import_policy`.

    `given` are the options on the command line. The game, its settings and the seed count only if `given` sets them,
    because defaults could contradict the file. The exception is the length of episodes, which scale=smoke limits.
    Raises NrmapError as `convert` and `ensure_imported` do.
    """
    names = {option.lstrip("+~").partition("=")[0] for option in given}
    policy = convert(
        str(keys.policy),
        game=keys.env["game"] if "env" in names else None,
        seed=keys.seed if "seed" in names else None,
        input_scale=keys.input_scale,
        env_settings={
            name: value
            for name, value in keys.env.items()
            if value is not None and (f"env.{name}" in names or name in keys.scale)
        },
    )
    return ensure_imported(policy, Path(keys.outputs), keys.expect)


def python_agent(reference: str, states_from: str, seed: int, device: torch.device) -> Agent:
    """Make the agent of `reference`, "py:MODULE:FACTORY". This runs the code of MODULE.

    FACTORY is called without arguments. It returns an nrmap.Agent, or a function of states, whose shape is then read
    from the file `states_from`. `seed` only labels the agent. The agent's `sha256` covers the source of MODULE, the
    weights, and the sources of the modules that define the layers; for a function that is no torch module, a few
    outputs instead. So another version gets new results. Raises NrmapError for a malformed `reference`, if a needed
    `states_from` is no file, and for any exception in that code.
    """
    parts = re.fullmatch(r"py:(\w+(?:\.\w+)*):(\w+)", reference)
    if parts is None:
        what = "expected py:MODULE:FACTORY, the names of a module, not its path, and of a function in it"
        raise NrmapError(f"policy={reference}: {what}, as in py:my_agent:make")
    module_name, factory_name = parts.groups()
    log.info("running the Python code of %s", module_name)
    with code_of_others(f"policy={reference}"):
        module = importlib.import_module(module_name)
        made = getattr(module, factory_name)()
        source = inspect.getsource(module)
        check(callable(made), f"policy={reference}: it returned a {type(made).__name__}, expected an agent or function")
        if not isinstance(made, Agent):
            check(states_from not in ("own", "pool"), f"{reference} returns no nrmap.Agent: add states_from=FILE.npy")
            made = Agent(made, read_states(Path(states_from)).states.shape[1:])
        made.name, made.seed = factory_name, seed
        agent = made.to(device)
        agent.sha256 = _digest(agent, "".join([source, *_sources_of_layers(agent, module_name)]))
    return agent


def _sources_of_layers(agent: Agent, besides: str) -> list[str]:
    """Return the sources of the modules, but for PyTorch, nrmap and `besides`, that define layers of `agent`.

    Modules without a source, such as compiled ones, are left out.
    """
    sources = []
    for name in sorted({type(layer).__module__ for layer in agent.modules()} - {besides}):
        if name.partition(".")[0] not in ("torch", "nrmap"):
            with suppress(KeyError, OSError, TypeError):
                sources.append(inspect.getsource(sys.modules[name]))
    return sources


@torch.no_grad()
def _digest(agent: Agent, source: str) -> str:
    """Hash the code, the weights and, unless the function is a torch module, its outputs on two grey ramps."""
    digest = hashlib.sha256(f"{source}{agent.state_shape}{agent.outputs}{agent.input_scale}".encode())
    tensors = {name: tensor for name, tensor in agent.state_dict().items() if isinstance(tensor, torch.Tensor)}
    for name, tensor in sorted(tensors.items()):
        dense = is_dense(tensor) or tensor.is_quantized
        check(dense, f"its weight {name} is sparse, nested or without values: expected a dense one")
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    if not isinstance(agent.function, nn.Module):
        count = torch.Size(agent.state_shape).numel()
        ramp = torch.arange(count, device=agent.device).remainder(256).to(torch.uint8).view(agent.state_shape)
        digest.update(agent(torch.stack([ramp, 255 - ramp])).double().cpu().numpy().data)
    return digest.hexdigest()
