"""Policies as files: weights plus the JSON that says what they are, never a pickle."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nrmap.envs import EnvSpec
from nrmap.errors import NrmapError, check
from nrmap.files import atomic_path
from nrmap.network import STATE_SCALE, ConvSpec, NetworkSpec, QNetwork

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
    format version, does not fit the network it declares, or holds NaN or infinite weights.
    """
    check(path.is_file(), f"no policy file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata_text = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise NrmapError(f"{path} is not a readable safetensors file: {error}") from error
    if metadata_text is None:
        raise NrmapError(f"{path} is a safetensors file but not a policy: it has no {METADATA_KEY!r} metadata")
    metadata = json.loads(metadata_text)
    if metadata.get("format") != FORMAT_VERSION:
        raise NrmapError(f"{path} has policy format {metadata.get('format')!r}: expected {FORMAT_VERSION}")
    network_fields = dict(metadata["network"])
    network_fields["convs"] = tuple(ConvSpec(**conv) for conv in network_fields["convs"])
    env = EnvSpec(**metadata["env"])
    network = QNetwork(NetworkSpec(**network_fields))
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise NrmapError(f"{path}: weight {name} is {found.get(name)}, its network needs {expected.get(name)}")
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NrmapError(f"{path}: weight {name} holds NaN or infinite values")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.to(torch.device(device)).requires_grad_(False)
    return Policy(network, env, PolicyCard(**metadata["card"]), sha256=_sha256(tensors, metadata)).eval()


def _sha256(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    card = {key: value for key, value in metadata["card"].items() if key not in ("results", "provenance")}
    digest = hashlib.sha256(json.dumps({**metadata, "card": card}, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def check_states(states: Tensor, env: EnvSpec) -> None:
    """NrmapError unless `states` is a non-empty uint8 [N, C, H, W] of the environment's shape."""
    expected = env.state_shape
    if states.dtype != torch.uint8 or states.ndim != 4 or tuple(states.shape[1:]) != expected or not len(states):
        raise NrmapError(
            f"states are {states.dtype} {list(states.shape)}: "
            f"expected torch.uint8 [N, {expected[0]}, {expected[1]}, {expected[2]}] with N ≥ 1"
        )
