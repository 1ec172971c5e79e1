"""Policies as files: weights plus the JSON that says what they are, never a pickle."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nrmap.atari.envs import EnvSpec, SeededVectorEnv
from nrmap.policies.network import STATE_SCALE, ConvSpec, NetworkSpec, QNetwork
from nrmap.support.errors import NrmapError, check
from nrmap.support.files import atomic_path
from nrmap.support.mappings import build, part

FORMAT_VERSION = 1
METADATA_KEY = "nrmap"


class ScoresActions(Protocol):
    """What maps, attacks and roll-outs ask of a policy, wherever it comes from."""

    outputs: Literal["q_values", "logits"]
    env: EnvSpec

    def __call__(self, states: Tensor) -> Tensor:
        """uint8 states [N, C, H, W] to outputs [N, A]; the scaling to [0, 1] is inside."""


@dataclass(frozen=True)
class PolicyCard:
    """What a policy file says of itself, besides its weights.

    `method` and `seed` name the training run, `settings` are its resolved result-relevant
    settings and `identity` their hash, `agent_steps` its length. `provenance` (commit, versions)
    and `results` (returns and seconds of the training) inform and do not enter any identity.
    """

    method: str
    seed: int
    agent_steps: int
    identity: str
    settings: dict[str, Any] = field(default_factory=dict)
    parent_sha256: str | None = None
    results: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


class Policy(nn.Module):
    """A Q-network with its input scaling, its environment and its card."""

    outputs: Literal["q_values", "logits"] = "q_values"

    def __init__(self, network: QNetwork, env: EnvSpec, card: PolicyCard, sha256: str | None = None) -> None:
        """`sha256` is that of what the policy is, see `load_policy`."""
        super().__init__()
        self.network = network
        self.env = env
        self.card = card
        self.sha256 = sha256

    def forward(self, states: Tensor) -> Tensor:
        """uint8 states [N, C, H, W] in [0, 255] to Q-values [N, A]."""
        return self.network(states.float() * STATE_SCALE)

    @property
    def label(self) -> str:
        """`Freeway/sa_ddqn/seed0`."""
        return f"{self.env.game}/{self.card.method}/seed{self.card.seed}"


def save_policy(path: Path, policy: Policy, dtype: torch.dtype = torch.float32) -> None:
    """Write `policy` to `path` atomically, its weights as `dtype`; equal policies give equal bytes."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous(memory_format=torch.contiguous_format).clone()
        for name, tensor in policy.network.state_dict().items()
    }
    metadata = {
        "format": FORMAT_VERSION,
        "outputs": policy.outputs,
        "env": asdict(policy.env),
        "network": asdict(policy.network.spec),
        "card": asdict(policy.card),
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_policy(path: Path, device: str | torch.device = "cpu") -> Policy:
    """The policy in `path`, as float32 on `device` and in evaluation mode.

    Its `sha256` covers everything but the card's `results` and `provenance`: the same training
    done again, elsewhere or slower, is the same policy, and nothing that was computed from the
    first is stale. Raises NrmapError when the file is missing, truncated, not of this project, of another
    format version, does not fit the network it declares, holds NaN or infinite weights, or declares
    a network that does not fit its environment.
    """
    check(path.is_file(), f"no policy file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise NrmapError(f"{path} is not a readable safetensors file: {error}") from error
    if text is None:
        raise NrmapError(f"{path} is a safetensors file but not a policy: it has no {METADATA_KEY!r} metadata")
    try:
        metadata = _metadata(text)
        env, card = build(EnvSpec, metadata["env"], "env"), build(PolicyCard, metadata["card"], "card")
        spec = _network_spec(part(metadata, "network", "metadata"))
        _check_weights(tensors, spec)
        _check_network(spec, env)
    except NrmapError as error:
        raise NrmapError(f"{path}: {error}") from error
    network = QNetwork(spec)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.to(torch.device(device)).requires_grad_(False)
    return Policy(network, env, card, sha256=_sha256(tensors, metadata)).eval()


def _metadata(text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise NrmapError(f"its metadata is not JSON ({error})") from error
    check(isinstance(metadata, dict), "its metadata is JSON but not keys and values")
    found = metadata.get("format")
    check(found == FORMAT_VERSION, f"policy format {found!r}: expected {FORMAT_VERSION}")
    outputs = metadata.get("outputs")
    check(outputs == Policy.outputs, f"outputs {outputs!r}: expected {Policy.outputs!r}")
    for key in ("env", "card"):
        part(metadata, key, "metadata")
    return metadata


def _network_spec(node: Mapping[str, Any]) -> NetworkSpec:
    convs = node.get("convs", ())
    check(isinstance(convs, list) and bool(convs), f"network.convs={convs!r}: expected a list of convolutions")
    built = tuple(build(ConvSpec, conv, "network.convs") for conv in convs)
    for conv in built:
        check(min(conv.channels, conv.kernel, conv.stride) >= 1, f"network.convs: {conv}: expected sizes of at least 1")
    spec: NetworkSpec = build(NetworkSpec, {**node, "convs": built}, "network")
    return spec


def _check_network(spec: NetworkSpec, env: EnvSpec) -> None:
    shape = (spec.in_channels, spec.height, spec.width)
    check(shape == env.state_shape, f"its network takes states {shape}, its environment gives {env.state_shape}")
    actions = _num_actions(env.game, env.full_action_space)
    check(spec.actions == actions, f"its network has {spec.actions} actions, {env.game} has {actions}")


@functools.cache
def _num_actions(game: str, full_action_space: bool) -> int:
    return SeededVectorEnv(EnvSpec(game, 84, 84, full_action_space=full_action_space), 1).num_actions


def _check_weights(tensors: Mapping[str, Tensor], spec: NetworkSpec) -> None:
    with torch.device("meta"):  # a file may claim any size
        expected = {name: tuple(tensor.shape) for name, tensor in QNetwork(spec).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        check(
            expected.get(name) == found.get(name),
            f"weight {name} is {found.get(name)}, its network needs {expected.get(name)}",
        )
    for name, tensor in tensors.items():
        check(tensor.is_floating_point(), f"weight {name} is {tensor.dtype}: expected floating-point numbers")
        check(bool(torch.isfinite(tensor.float()).all()), f"weight {name} holds NaN or infinite values")


def _sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    card = {key: value for key, value in metadata["card"].items() if key not in ("results", "provenance")}
    digest = hashlib.sha256(json.dumps({**metadata, "card": card}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)  # NumPy has no bfloat16
    return digest.hexdigest()


def check_states(states: Tensor, env: EnvSpec) -> None:
    """NrmapError unless `states` is a non-empty uint8 [N, C, H, W] of the environment's shape."""
    expected = env.state_shape
    if states.dtype != torch.uint8 or states.ndim != 4 or tuple(states.shape[1:]) != expected or not len(states):
        raise NrmapError(
            f"states are {states.dtype} {list(states.shape)}: "
            f"expected torch.uint8 [N, {expected[0]}, {expected[1]}, {expected[2]}] with N ≥ 1"
        )
