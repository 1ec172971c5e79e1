"""Policies of other programs: the same outputs and maps as the original's, on the same uint8 states."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_files import CLEANRL, FOREIGN, Foreign, named, nature
from mutations import rewritten_zip
from summed_networks import lead_of
from torch import Tensor

import nrmap
from nrmap.atari.envs import action_names
from nrmap.policies.formats import convert
from nrmap.policies.policy import Policy, load_policy, save_policy
from nrmap.robustness.bounds import bounded_network, margins_of
from nrmap.robustness.certify import IntervalCertifier


def some_states(frames: int, number: int) -> Tensor:
    """Grey blocks, most of them black, as on a screen."""
    generator = torch.Generator().manual_seed(5)
    blocks = torch.randint(-300, 256, (number, frames, 12, 12), generator=generator).clamp(0)
    return blocks.repeat_interleave(7, 2).repeat_interleave(7, 3).to(torch.uint8)


def imported(foreign: Foreign, folder: Path) -> Policy:
    """The policy after export, conversion, and a round trip through nrmap's file."""
    path = folder / ("agent.zip" if foreign.format == "sb3" else "agent.pt")
    foreign.save(path)
    save_policy(folder / "p", convert(f"{foreign.format}:{path}", game=foreign.game, **foreign.options))
    return load_policy(folder / "p")


# One of every kind of network that a file becomes. An engine's maps of the others say nothing that outputs do not.
MAPPED = {
    "sb3_ppo", "sb3_qrdqn", "radial", "cleanrl_c51", "pfrl_dqn of 2013", "pfrl_dqn with one bias",
    "tianshou_dqn, not scaled",
}  # fmt: skip
assert FOREIGN.keys() >= MAPPED


@pytest.mark.parametrize("name", FOREIGN)
def test_outputs_and_k_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    foreign = FOREIGN[name]().frozen()
    states = some_states(foreign.frames, 4)
    policy = imported(foreign.level(states[0]), tmp_path)
    assert policy.method == name.partition(" ")[0].rstrip(",")
    logits = policy.method.endswith(("ppo", "a2c"))
    assert policy.outputs == ("logits" if logits else "q_values")

    expected = foreign.outputs(states)
    allowed = 1e-4 * max(1.0, float(expected.abs().max()))
    found = policy(states)
    if name.startswith("sb3") and logits:  # its distribution subtracts the logarithm of their sum
        found = found.log_softmax(dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed)

    clean = expected[0].double().numpy()
    best, k, sure = int(clean.argmax()), np.zeros((84, 84)), np.zeros((84, 84), dtype=bool)
    for i in range(0, 84, 21):
        row = states[:1].repeat(84, 1, 1, 1)  # [W, C, H, W]
        row[torch.arange(84), :, i, torch.arange(84)] = 0
        ours, theirs = policy(row), foreign.outputs(row)
        apart = ours - theirs  # the same number for all actions of a log-softmax
        torch.testing.assert_close(apart, apart[:, :1].expand_as(apart), rtol=0, atol=allowed)
        for j, ablated in enumerate(theirs.double().numpy()):
            first, second = np.sort(ablated)[[-1, -2]]
            k[i, j], sure[i, j] = clean[best] - clean[ablated.argmax()], first - second > 2e-6
    assert ((k > 0) & sure).sum() > 10 or "one bias" in name
    if name in MAPPED:
        maps = nrmap.compute_maps(policy, states[:1], progress=False)
        assert maps.metadata["engine"].startswith("incremental")
        np.testing.assert_allclose(maps["kmap"][sure], k[sure], rtol=0, atol=allowed)

    missing = policy.for_attacks()(states / 255) - policy(states)  # [N, A], one number for each state
    torch.testing.assert_close(missing, missing[:, :1].expand_as(missing), rtol=0, atol=allowed / 10)
    attacked = nrmap.attack(policy, states, "pgd-10", epsilon=1e-4)
    reached = foreign.outputs(255 * attacked.perturbed)  # [N, A]
    reached = reached - policy.for_attacks()(attacked.perturbed)
    torch.testing.assert_close(reached, reached[:, :1].expand_as(reached), rtol=0, atol=allowed)
    if policy.network.spec.atoms is not None:
        with pytest.raises(nrmap.NrmapError, match="categorical"):
            bounded_network(policy)
    else:
        assert not (nrmap.certify(policy, states, epsilon=1e-4) & attacked.flipped).any()
        # With a lead of one action that lies between the states' bounds, some states are certified.
        bounds = IntervalCertifier(bounded_network(policy)).difference_bounds(states / 255, 1e-4)
        bounds = margins_of(bounds, torch.full((4,), best))
        lead_of(policy.network, best, float(bounds.amin() + bounds.amax()) / 2)
        certified = nrmap.certify(policy, states, epsilon=1e-4)
        assert 0 < certified.sum() < 4
        assert not (certified & nrmap.attack(policy, states, "pgd-10", epsilon=1e-4).flipped).any()


def test_swapped_axes_are_folded_once_whoever_names_them(tmp_path: Path) -> None:
    foreign = FOREIGN["sa_dqn"]().frozen()
    foreign.save(tmp_path / "f")
    states = some_states(foreign.frames, 2)
    for settings in ({}, {"transposed": True}, {"eyes": "sa_dqn"}):
        policy = convert(f"sa_dqn:{tmp_path / 'f'}", game=foreign.game, env_settings=settings)
        assert not policy.env.transposed
        torch.testing.assert_close(policy(states), foreign.outputs(states), rtol=0, atol=1e-4)


def test_other_extractors_and_colours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.zip"
    FOREIGN["sb3_dqn"]().save(path)
    whole = path.read_bytes()
    for key, value, why in (
        ("policy_kwargs", {"features_extractor_class": "<class '__main__.NatureCNNTanh'>"}, "Tanh.*expected NatureCNN"),
        ("policy_kwargs", {"normalize_images": "False"}, "its normalize_images is 'False'"),
        ("action_space", {":type:": "<class 'gymnasium.spaces.MultiDiscrete'>"}, "MultiDiscrete.*: expected Discrete"),
        ("action_space", {":type:": "<class 'gymnasium.spaces.Discrete'>", "n": "4"}, "for 4 actions, Pong has 6"),
        ("observation_space", {"_shape": None}, "_shape None: expected a list"),
        ("observation_space", {"_shape": [4, None, {}]}, r"None, \{\}\): expected whole numbers"),
    ):

        def change(members: dict[str, bytes], key: str = key, value: dict = value) -> None:
            members["data"] = json.dumps(json.loads(members["data"]) | {key: value}).encode()
            del members["policy.optimizer.pth"]  # which nobody reads and takes seconds to compress

        path.write_bytes(rewritten_zip(whole, change))
        with pytest.raises(nrmap.NrmapError, match=why):
            convert(f"sb3:{path}", game="Pong")
    torch.save(named(nature(frames=3), *CLEANRL, "network.9"), tmp_path / "rgb")
    with pytest.raises(nrmap.NrmapError, match="3 channels: colours are not supported"):
        convert(f"cleanrl:{tmp_path / 'rgb'}", game="Pong")
    for outputs in ("", "\0", "x" * 300):
        with pytest.raises(nrmap.NrmapError, match=r"outputs='': expected a folder|cannot write "):
            nrmap.import_policy(f"cleanrl:{tmp_path / 'rgb'}", "Pong", env_settings={"frame_stack": 3}, outputs=outputs)
    greys = convert(f"cleanrl:{tmp_path / 'rgb'}", game="Pong", env_settings={"frame_stack": 3})
    assert greys.state_shape == (3, 84, 84)


def test_the_last_layer_tells_the_set_of_actions(tmp_path: Path) -> None:
    for actions, names in ((4, "first 4 of Pong"), (6, "all of Pong"), (18, "all of ALE")):
        torch.save(nature(actions, frames=1).state_dict(), tmp_path / "f")
        policy = convert(f"sa_dqn:{tmp_path / 'f'}", game="Pong")
        assert len(action_names(policy.env)) == actions, names
    with pytest.raises(nrmap.NrmapError, match="18 outputs, 4 actions need 4"):
        convert(f"sa_dqn:{tmp_path / 'f'}", game="Pong", env_settings={"first_actions": 4})
