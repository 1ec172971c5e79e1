"""Policy files: weights and JSON metadata in one safetensors file, without pickles."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import action_names
from nrmap.policies.agent import Agent, Outputs
from nrmap.policies.network import STATE_SCALE, NetworkSpec, QNetwork, acts_as_its_type, frozen
from nrmap.support.arguments import checked
from nrmap.support.errors import NrmapError, check, first_line, named, shortened
from nrmap.support.files import parse_json
from nrmap.support.identity import recorded
from nrmap.support.schema import Name, Sha256, schema, validated
from nrmap.support.tensor_files import digest_tensors, read_tensors, write_tensors

FORMAT_VERSION: Literal[1] = 1
METADATA_KEY = "nrmap"


@schema
class PolicySource:
    """The file that a policy was imported from: its format and SHA-256, and `details` (input scale, swapped axes)."""

    format: Name
    sha256: Sha256
    details: dict[str, Any] = field(default_factory=dict)


@schema
class PolicyCard:
    """The description of a policy in its file.

    `method` and `seed` name the training run, `agent_steps` is the run's length. `settings` are the run's resolved
    settings that affect the result. `parent_sha256` is the policy that the run started from, None if there is none.
    `identity` is the hash of both, see `TrainSettings.identity`. `results` (returns, seconds) and `provenance` (commit,
    versions) are for information: they enter neither `identity` nor the policy's `sha256`. `source` is None unless the
    policy was imported; then `identity` covers the source and the environment. Raises NrmapError for values that do not
    fit.
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
        """`sha256` identifies the policy, see `load_policy`. None means that it was not loaded from a file."""
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
        """Return the function that `Agent.for_attacks` describes, but faster: `frozen` without V(s).

        Leaving out V(s) shifts all outputs of a state equally, which changes no margin and no softmax. This function
        does not check its outputs. With another `input_scale`, or a network that was changed, as by a hook, it is the
        function of `Agent.for_attacks`. Raises NrmapError for hooks or methods of the policy itself.
        """
        unchanged = self.input_scale == STATE_SCALE and self.network.is_as_specified and acts_as_its_type(self)
        return frozen(self.network, value=False) if unchanged else super().for_attacks()


def save_policy(path: Path, policy: Policy, dtype: torch.dtype = torch.float32) -> None:
    """Write `policy` to `path` atomically, with weights as `dtype`; equal policies give equal bytes.

    Raises NrmapError as `atomic_path` does.
    """
    tensors = {name: tensor.detach().to("cpu", dtype) for name, tensor in policy.network.state_dict().items()}
    metadata = recorded(_Metadata(FORMAT_VERSION, policy.outputs, policy.env, policy.network.spec, policy.card))
    write_tensors(path, tensors, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


@schema
class _Metadata:
    """The JSON metadata of a policy file."""

    format: Literal[1]
    outputs: Outputs
    env: EnvSpec
    network: NetworkSpec
    card: PolicyCard


@checked
def load_policy(path: str | Path, device: str | torch.device = "cpu") -> Policy:
    """Load the policy file `path` in float32 on `device`, in evaluation mode.

    The policy's `sha256` covers everything except the card's `results` and `provenance`, so that a repeated training
    with the same weights gives the same hash, and results computed from the first policy stay valid.

    Raises NrmapError if the file is missing, unreadable, truncated, changed, not a policy or of another format version.
    Raises NrmapError if weights are NaN, infinite or do not fit the declared network, or if the network does not fit
    the environment. Raises NrmapError if there is no such `device`, or if it holds no values ("meta").
    """
    path = Path(path)
    foreign = path.suffix != ".safetensors" and path.is_file()
    with named(after="; for a file of another program see nrmap.import_policy" if foreign else ""):
        tensors, of_file = read_tensors(path, "policy")
    try:
        check(METADATA_KEY in of_file, f"a safetensors file but not a policy: it has no {METADATA_KEY!r} metadata")
        metadata = parse_json(of_file[METADATA_KEY].encode())
        described: _Metadata = validated(_Metadata, metadata)
        _check_weights(tensors, described.network)
        _check_network(described.network, described.env)
    except (NrmapError, ValueError) as error:  # of parse_json
        raise NrmapError(f"{path}: {first_line(error)}") from error
    with torch.device("cpu"):  # whatever the caller's default is
        network = QNetwork(described.network)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    try:
        network.to(torch.device(device)).requires_grad_(False)
    except Exception as error:  # torch has many for a device that is not there
        raise NrmapError(f"device={shortened(device)}: {first_line(error)}") from error
    check(not next(network.parameters()).is_meta, f"device={shortened(device)} holds no values: expected cpu or cuda")
    return Policy(network, described.env, described.card, _sha256(tensors, metadata), described.outputs).eval()


def _check_network(spec: NetworkSpec, env: EnvSpec) -> None:
    shape = (spec.in_channels, spec.height, spec.width)
    check(shape == env.state_shape, f"its network takes states {shape}, its environment gives {env.state_shape}")
    actions = len(action_names(env))
    check(spec.actions == actions, f"its network has {spec.actions} actions, {env.game} has {actions}")


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
        known = tensor.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        check(known, f"weight {name} is {tensor.dtype}: expected floating-point numbers of 16 to 64 bits")
        check(bool(torch.isfinite(tensor.float()).all()), f"weight {name} holds NaN or infinite values")


def _sha256(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    card = {key: value for key, value in metadata["card"].items() if key not in ("results", "provenance")}
    digest = hashlib.sha256(json.dumps({**metadata, "card": card}, sort_keys=True).encode())
    digest_tensors(digest, tensors)
    return digest.hexdigest()
