"""A policy is its file: it comes back whole or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nrmap.envs import EnvSpec
from nrmap.errors import NrmapError
from nrmap.network import NetworkSpec, QNetwork
from nrmap.policy import METADATA_KEY, Policy, PolicyCard, check_states, load_policy, save_policy

ENV = EnvSpec("Freeway", 84, 84)


def make_policy() -> Policy:
    torch.manual_seed(0)
    card = PolicyCard("ddqn", 3, 1000, "abc", settings={"gamma": 0.99}, results={"return": 21.0})
    return Policy(QNetwork(NetworkSpec(1, 84, 84, 3)), ENV, card)


def rewrite(path: Path, **changes: object) -> None:
    """Replace top-level fields of the metadata of the policy file `path`."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    metadata.update(changes)
    safetensors.torch.save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})


def test_a_policy_comes_back_with_its_card_and_its_q_values(tmp_path: Path) -> None:
    policy, path = make_policy(), tmp_path / "p.safetensors"
    save_policy(path, policy)
    loaded = load_policy(path)
    states = torch.randint(0, 256, (4, 1, 84, 84), dtype=torch.uint8)
    torch.testing.assert_close(loaded(states), policy(states), rtol=0, atol=0)
    assert loaded.card == policy.card
    assert loaded.env == ENV
    assert loaded.label == "Freeway/ddqn/seed3"


def test_equal_policies_give_equal_bytes(tmp_path: Path) -> None:
    save_policy(tmp_path / "a", make_policy())
    save_policy(tmp_path / "b", make_policy())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_hash_is_of_what_the_policy_is_not_of_how_it_came_about(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"

    def sha256(policy: Policy, dtype: torch.dtype = torch.float32) -> str | None:
        save_policy(path, policy, dtype)
        return load_policy(path).sha256

    policy = make_policy()
    first = sha256(policy)
    slower = replace(policy.card, results={"seconds": 1e9}, provenance={"commit": "f00"})
    assert sha256(Policy(policy.network, ENV, slower)) == first
    others = {
        sha256(policy, torch.float16),
        sha256(Policy(policy.network, replace(ENV, sticky_actions=0.25), policy.card)),
        sha256(Policy(policy.network, ENV, replace(policy.card, seed=4))),
        sha256(Policy(policy.network, ENV, replace(policy.card, parent_sha256="0"))),
    }
    with torch.no_grad():
        policy.network.advantage[0].bias[7] += 1e-6
    assert len({first, sha256(policy), *others}) == 6


def test_half_precision_weights_are_what_is_computed_with(tmp_path: Path) -> None:
    policy = make_policy()
    save_policy(tmp_path / "p", policy, dtype=torch.float16)
    loaded = load_policy(tmp_path / "p")
    for name, tensor in policy.network.state_dict().items():
        torch.testing.assert_close(loaded.network.state_dict()[name], tensor.half().float(), rtol=0, atol=0)
    assert (tmp_path / "p").stat().st_size < 7e6


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NrmapError, match="no policy file"):
        load_policy(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, 100_000])
def test_a_truncated_file(tmp_path: Path, keep: int) -> None:
    save_policy(tmp_path / "p", make_policy())
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:keep])
    with pytest.raises(NrmapError, match="not a readable safetensors file"):
        load_policy(tmp_path / "p")


def test_a_foreign_safetensors_file(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "p")
    with pytest.raises(NrmapError, match="not a policy"):
        load_policy(tmp_path / "p")


def test_another_format_version(tmp_path: Path) -> None:
    save_policy(tmp_path / "p", make_policy())
    rewrite(tmp_path / "p", format=99)
    with pytest.raises(NrmapError, match="policy format 99: expected 1"):
        load_policy(tmp_path / "p")


def test_weights_that_do_not_fit_the_declared_network(tmp_path: Path) -> None:
    save_policy(tmp_path / "p", make_policy())
    other = QNetwork(NetworkSpec(1, 84, 84, 6)).spec
    rewrite(tmp_path / "p", network={**other.__dict__, "convs": [conv.__dict__ for conv in other.convs]})
    with pytest.raises(NrmapError, match=r"weight advantage\.2\.bias is \(3,\), its network needs \(6,\)"):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, bad: float) -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.network.features[0].weight[0, 0, 0, 0] = bad
    save_policy(tmp_path / "p", policy)
    with pytest.raises(NrmapError, match=r"features\.0\.weight holds NaN or infinite"):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize(
    "states",
    [
        torch.zeros(2, 1, 84, 84),
        torch.zeros(0, 1, 84, 84, dtype=torch.uint8),
        torch.zeros(2, 4, 84, 84, dtype=torch.uint8),
        torch.zeros(2, 84, 84, dtype=torch.uint8),
    ],
)
def test_states_of_another_shape_or_type(states: torch.Tensor) -> None:
    with pytest.raises(NrmapError, match=r"expected torch\.uint8 \[N, 1, 84, 84\]"):
        check_states(states, ENV)
