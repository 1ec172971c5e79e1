"""Policy files: weights and JSON metadata in one safetensors file, without pickles."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, get_args

import safetensors
import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor

from nrmap.atari.envs import EnvSpec, SeededVectorEnv
from nrmap.policies.agent import Agent, Outputs
from nrmap.policies.network import AtomSpec, ConvSpec, NetworkSpec, QNetwork, frozen
from nrmap.support.errors import NrmapError, check, unknown_choice
from nrmap.support.files import atomic_path
from nrmap.support.identity import recorded
from nrmap.support.mappings import build, part
from nrmap.support.schema import Name, Sha256, schema, validated

FORMAT_VERSION = 1
METADATA_KEY = "nrmap"


@schema
class PolicySource:
    """The file that a policy was imported from: its format, the hash of its bytes, and facts of its format."""

    format: Name
    sha256: Sha256
    details: dict[str, Any] = field(default_factory=dict)


@schema
class PolicyCard:
    """The description of a policy in its file.

    `method` and `seed` name the training run. `settings` are its resolved settings, as far as they
    affect the result, and `identity` is their hash. `agent_steps` is its length. `parent_sha256` is
    the policy that it started from. `provenance` (commit, versions) and `results` (returns, seconds)
    are for information and enter no hash. Only imported policies have a `source`.
    """

    method: Name
    seed: Annotated[int, Field(ge=0)]
    agent_steps: Annotated[int, Field(ge=0)]
    identity: Name
    settings: dict[str, Any] = field(default_factory=dict)
    parent_sha256: Sha256 | None = None
    results: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    source: PolicySource | None = None

    def as_metadata(self) -> dict[str, Any]:
        """The fields for files and hashes, `source` only of imported policies: other files have no such key."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("source", None)}


class Policy(Agent):
    """An agent made of a network, with the environment and the card from its file."""

    env: EnvSpec

    def __init__(
        self,
        network: QNetwork,
        env: EnvSpec,
        card: PolicyCard,
        sha256: str | None = None,
        outputs: Outputs = "q_values",
    ) -> None:
        """`sha256` identifies the policy, see `load_policy`."""
        spec = network.spec
        super().__init__(network, (spec.in_channels, spec.height, spec.width), outputs, env=env, name=card.method)
        self.card = card
        self.seed = card.seed
        self.sha256 = sha256

    @property
    def network(self) -> QNetwork:
        """The network, which takes float states in [0, 1]."""
        assert isinstance(self.function, QNetwork)
        return self.function

    @property
    def label(self) -> str:
        """Game, method and seed, as in `Freeway/sa_ddqn/seed0`."""
        return f"{self.env.game}/{self.card.method}/seed{self.card.seed}"

    def for_attacks(self) -> Callable[[Tensor], Tensor]:
        """See `Agent`; here with cheap gradients and without V(s), which no margin and no softmax depends on."""
        return frozen(self.network, value=False)


def save_policy(path: Path, policy: Policy, dtype: torch.dtype = torch.float32) -> None:
    """Write `policy` to `path` atomically, with weights as `dtype`. Equal policies give equal bytes."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous(memory_format=torch.contiguous_format).clone()
        for name, tensor in policy.network.state_dict().items()
    }
    metadata = {
        "format": FORMAT_VERSION,
        "outputs": policy.outputs,
        "env": recorded(policy.env),
        "network": policy.network.spec.as_metadata(),
        "card": policy.card.as_metadata(),
    }
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """The policy in `path`, in float32 on `device` and in evaluation mode.

    Its `sha256` covers all but the card's `results` and `provenance`. If a training is repeated and
    gives the same weights, results that were computed from the first policy stay valid.

    Raises NrmapError if the file is missing, truncated, not a policy or of another format version, if
    weights are NaN, infinite or do not fit the declared network, or if the network does not fit the
    environment.
    """
    path = Path(path)
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
        env, card = build(EnvSpec, metadata["env"], "env"), validated(PolicyCard, metadata["card"], "card")
        spec = _network_spec(part(metadata, "network", "metadata"))
        _check_weights(tensors, spec)
        _check_network(spec, env)
    except NrmapError as error:
        raise NrmapError(f"{path}: {error}") from error
    network = QNetwork(spec)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.to(torch.device(device)).requires_grad_(False)
    return Policy(network, env, card, _sha256(tensors, metadata), metadata["outputs"]).eval()


def _metadata(text: str) -> dict[str, Any]:
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError as error:
        raise NrmapError(f"its metadata is not JSON ({error})") from error
    check(isinstance(metadata, dict), "its metadata is JSON but not keys and values")
    found = metadata.get("format")
    check(found == FORMAT_VERSION, f"policy format {found!r}: expected {FORMAT_VERSION}")
    outputs = metadata.get("outputs")
    if outputs not in get_args(Outputs):
        raise unknown_choice("outputs", outputs, get_args(Outputs))
    for key in ("env", "card"):
        part(metadata, key, "metadata")
    return metadata


def _network_spec(node: Mapping[str, Any]) -> NetworkSpec:
    convs = node.get("convs", ())
    check(isinstance(convs, list) and bool(convs), f"network.convs={convs!r}: expected a list of convolutions")
    built = tuple(build(ConvSpec, conv, "network.convs") for conv in convs)
    for conv in built:
        check(min(conv.channels, conv.kernel, conv.stride) >= 1, f"network.convs: {conv}: expected sizes of at least 1")
    atoms = {"atoms": build(AtomSpec, node["atoms"], "network.atoms")} if "atoms" in node else {}
    spec: NetworkSpec = build(NetworkSpec, {**node, "convs": built, **atoms}, "network")
    return spec


def _check_network(spec: NetworkSpec, env: EnvSpec) -> None:
    shape = (spec.in_channels, spec.height, spec.width)
    check(shape == env.state_shape, f"its network takes states {shape}, its environment gives {env.state_shape}")
    actions = num_actions(env)
    check(spec.actions == actions, f"its network has {spec.actions} actions, {env.game} has {actions}")


@functools.cache
def num_actions(env: EnvSpec) -> int:
    """A, the number of actions in the environment."""
    return SeededVectorEnv(env, 1).num_actions


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
