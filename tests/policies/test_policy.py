"""A policy is its file: it comes back whole or not at all."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nrmap.atari.env_spec import EnvSpec
from nrmap.policies.network import NetworkSpec, QNetwork
from nrmap.policies.policy import METADATA_KEY, Policy, PolicyCard, load_policy, save_policy
from nrmap.support.errors import NrmapError

SIDE = 36  # the smallest screen on which the Nature convolutions fit
ENV = EnvSpec("Freeway", SIDE, SIDE)


def make_policy() -> Policy:
    torch.manual_seed(0)
    card = PolicyCard("ddqn", 3, 1000, "abc", settings={"gamma": 0.99}, results={"return": 21.0})
    return Policy(QNetwork(NetworkSpec(1, SIDE, SIDE, 3)), ENV, card)


def content(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the metadata of the policy file `path`."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 (not a dict)


def test_a_policy_comes_back_with_its_card_and_its_q_values(tmp_path: Path) -> None:
    policy, path = make_policy(), tmp_path / "p.safetensors"
    save_policy(path, policy)
    loaded = load_policy(path)
    states = torch.randint(0, 256, (4, 1, SIDE, SIDE), dtype=torch.uint8)
    assert torch.equal(loaded(states), policy(states))
    assert (loaded.card, loaded.env, loaded.label) == (policy.card, ENV, "Freeway/ddqn/seed3")
    whole = path.read_bytes()
    save_policy(path, make_policy())
    assert path.read_bytes() == whole, "equal policies give equal bytes"


def test_half_precision_weights_are_what_is_computed_with(tmp_path: Path) -> None:
    policy = make_policy()
    save_policy(tmp_path / "p", policy, dtype=torch.float16)
    loaded, weights = load_policy(tmp_path / "p").network.state_dict(), policy.network.state_dict()
    assert all(torch.equal(loaded[name], tensor.half().float()) for name, tensor in weights.items())
    assert (tmp_path / "p").stat().st_size < 2.2 * sum(tensor.numel() for tensor in weights.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": {"gane": "Pong"}}, "unknown key of env 'gane': did you mean game?"),
        ({"env": {"game": "Pnog"}}, "unknown game 'Pnog': did you mean Pong"),
        ({"env": {"frame_stack": 4}}, "its network takes states (1, 36, 36), its environment gives (4, 36, 36)"),
        ({"env": {"game": "Pong"}}, "its network has 3 actions, Pong has 6"),
        ({"network": {"hidden": 256}}, "weight advantage.0.bias is (512,), its network needs (256,)"),
    ],
)
def test_metadata_of_another_kind_is_one_clear_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "p"
    save_policy(path, make_policy())
    tensors, metadata = content(path)
    for part, change in changes.items():
        metadata[part] |= change
    safetensors.torch.save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})
    with pytest.raises(NrmapError) as caught:
        load_policy(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_hash_is_of_the_bytes_of_the_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "p"
    save_policy(path, make_policy(), dtype)
    tensors, metadata = content(path)
    for key in ("results", "provenance"):
        del metadata["card"][key]
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    for name in sorted(tensors):
        first, last = header[name]["data_offsets"]
        digest.update(f"{name} {dtype}".encode() + raw[begin + first : begin + last])
    assert load_policy(path).sha256 == digest.hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.long(), r"weight value\.2\.bias is torch\.int64: expected floating-point numbers"),
        (lambda weights: weights * float("nan"), r"value\.2\.bias holds NaN or infinite"),
        (lambda weights: weights.byte().view(torch.float4_e2m1fn_x2), "expected floating-point numbers of 16 to 64"),
    ],
)
def test_weights_that_are_no_finite_numbers(tmp_path: Path, change: Callable, message: str) -> None:
    save_policy(tmp_path / "p", make_policy())
    tensors, metadata = content(tmp_path / "p")
    tensors["value.2.bias"] = change(tensors["value.2.bias"])
    safetensors.torch.save_file(tensors, tmp_path / "p", metadata={METADATA_KEY: json.dumps(metadata)})
    with pytest.raises(NrmapError, match=message):
        load_policy(tmp_path / "p")


@pytest.mark.parametrize("device", ["hpu", "privateuseone", "nowhere", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    save_policy(tmp_path / "p", make_policy())
    with pytest.raises(NrmapError, match=f"device='{device}'"):
        load_policy(tmp_path / "p", device)
