"""Maps through the public API against a double loop over pixels, for networks of all kinds."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from paper_algorithms import algorithms_1_and_2
from swept_maps import identical
from torch import Tensor, nn
from torch.nn import functional

import nrmap
from nrmap import compute_maps
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork

Case = tuple[nrmap.Agent, Tensor]


class Residual(nn.Module):
    """A skip connection and an average over the screen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 6, 5, 2), nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6 * 6 * 6, 4)

    def forward(self, states: Tensor) -> Tensor:
        planes = self.first(states).relu()
        planes = (planes + self.second(planes)).relu()
        return self.last(functional.adaptive_avg_pool2d(planes, 6).flatten(1))


def some_states(*shape: int, seed: int = 0) -> Tensor:
    """Grey squares, a third of them black: many pixels have the ablated value already."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randint(-120, 256, shape, generator=generator).clamp(0)
    return states.repeat_interleave(2, 2)[:, :, : shape[2]].to(torch.uint8)


def with_close_actions(network: nn.Module, last: nn.Linear, states: Tensor) -> nn.Module:
    """`network` with biases that make its actions nearly equal on the first of `states`, so that pixels flip them."""
    network.eval().requires_grad_(False)
    outputs = network(states / 255)[0]  # [A]
    last.bias -= outputs - outputs.std() * 1e-3 * torch.arange(len(outputs))
    return network


def dueling() -> Case:
    torch.manual_seed(1)
    states = some_states(3, 4, 20, 22)
    network = QNetwork(NetworkSpec(4, 20, 22, 5, convs=(ConvSpec(6, 5, 2), ConvSpec(6, 3, 1)), hidden=16))
    return nrmap.Agent(with_close_actions(network, network.advantage[2], states), (4, 20, 22)), states


def batch_normalised() -> Case:
    states, convolution = some_states(3, 4, 18, 18), nn.Conv2d(4, 6, 3, 2, bias=False)
    network = nn.Sequential(convolution, nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 8 * 8, 3))
    network.train()(torch.rand(64, 4, 18, 18))  # means and variances of its own
    return nrmap.Agent(with_close_actions(network, network[-1], states), (4, 18, 18)), states


def residual() -> Case:
    network, states = Residual(), some_states(3, 4, 24, 24)
    return nrmap.Agent(with_close_actions(network, network.last, states), (4, 24, 24)), states


def logits_of_a_network_that_scales_by_itself() -> Case:
    states = some_states(3, 1, 16, 16)
    network = nn.Sequential(nn.Conv2d(1, 4, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 7 * 7, 6))
    with_close_actions(network, network[-1], states)
    return nrmap.Agent(lambda levels: network(levels / 255), (1, 16, 16), "logits", input_scale=1), states


def uint8_function() -> Case:
    weights = torch.randn(2 * 9 * 7, 3, generator=torch.Generator().manual_seed(3)).sign()

    def function(states: Tensor) -> Tensor:
        assert states.dtype == torch.uint8
        return (states > 100).flatten(1).float() @ weights

    return nrmap.Agent(function, (2, 9, 7), input_scale=None), some_states(4, 2, 9, 7)


def with_a_masked_action() -> Case:
    agent, states = dueling()
    mask, network = torch.tensor([False, True, False, False, False]), agent.function
    return nrmap.Agent(lambda inputs: torch.where(mask, -1e9, network(inputs)), agent.state_shape), states


@pytest.mark.parametrize(
    ("make", "incremental", "value"),
    [
        (dueling, True, 0),
        (dueling, True, 200),
        (batch_normalised, True, 200),
        (residual, False, 0),
        (logits_of_a_network_that_scales_by_itself, False, 0),
        (uint8_function, False, 0),
        (uint8_function, False, 200),
        (uint8_function, False, 255),
        (with_a_masked_action, True, 0),
    ],
)
def test_maps_equal_a_double_loop_over_pixels(make: Callable[[], Case], incremental: bool, value: int) -> None:
    torch.manual_seed(1)
    agent, states = make()
    states[1] = value  # as a black screen: no ablation changes it
    maps = nrmap.compute_maps(agent, states.numpy(), [0.05, 1.0], ablated_value=value, progress=False)
    assert maps.metadata["engine"].startswith("incremental") == incremental
    function, scale = agent.function, agent.input_scale
    if isinstance(function, nn.Module):
        exact = copy.deepcopy(function).double()
        function = lambda inputs: exact(inputs.double())  # noqa: E731
    read = lambda some: function(some if scale is None else some.float() * scale)  # noqa: E731
    expected = algorithms_1_and_2(read, states, 1.0, value)
    ties = expected.pop("ties")
    if scale is None:  # whole numbers, which tie exactly
        ties = np.zeros_like(ties)
    assert (np.abs(maps["flip_map"] - expected.pop("flip_map")) <= ties).all()
    for kind, map_ in expected.items():
        found = maps[kind, 1.0 if kind in ("hmap", "kl") else None]
        np.testing.assert_allclose(found, map_, rtol=1e-4, atol=2e-5 * max(1.0, np.abs(map_).max()))
    assert np.count_nonzero(maps["kmap"]) > 10
    # Where a pixel has the ablated value in every state, nothing changes: exactly 0.
    assert not maps["kl", 1.0][(states.numpy() == value).all(axis=(0, 1))].any()
    assert maps.metadata["outputs"] == agent.outputs


def test_arrays_and_tensors_of_any_layout_give_the_same_maps() -> None:
    agent, states = dueling()
    expected = nrmap.compute_maps(agent, states, progress=False)["kmap"]
    array, read_only = states.numpy(), states.numpy().copy()
    read_only.flags.writeable = False
    backwards = np.ascontiguousarray(array[:, :, ::-1])[:, :, ::-1]
    with warnings.catch_warnings(action="error"):
        for same in (array, np.asfortranarray(array), read_only, backwards, list(array)):
            assert np.array_equal(nrmap.compute_maps(agent, same, progress=False)["kmap"], expected)


def test_channels_are_ablated_apart_on_request() -> None:
    agent, states = dueling()
    states[1] = 0
    maps = nrmap.compute_maps(agent, states, channels="each", progress=False)
    dense = nrmap.compute_maps(agent, states, channels="each", engine="dense", progress=False)
    np.testing.assert_allclose(maps["kl", 1.0], dense["kl", 1.0], rtol=1e-4, atol=2e-5)
    assert maps["kmap"].shape == maps["hmap", 1.0].shape == (4, 20, 22)
    assert len(maps.plot().axes) == 2 * 5 * 4  # a colour bar beside each map


def test_without_episodes_there_is_no_interval_and_with_enough_there_is() -> None:
    agent, states = dueling()[0], some_states(16, 4, 20, 22)
    alone = nrmap.compute_maps(agent, states, progress=False).sparsity("kl", 1.0)
    assert alone.low is alone.high is alone.interval is None
    assert "needs at least 16 episodes, found 1" in str(alone)
    maps = nrmap.compute_maps(agent, states, episode_ids=np.arange(16), progress=False)
    each = maps.sparsity("kl", 1.0)
    assert each.low < each.value < each.high
    total = maps["kl", 1.0]
    assert each.value == pytest.approx(alone.value) == pytest.approx(np.abs(total).sum() / np.sqrt((total**2).sum()))


@pytest.mark.bitwise
@pytest.mark.parametrize("mixed", [False, True])
def test_the_maps_of_an_episode_do_not_depend_on_others(mixed: bool) -> None:
    (agent, _), states, ids = dueling(), some_states(12, 4, 20, 22), np.repeat([0, 1, 2], [5, 4, 3])
    ids = np.random.default_rng(0).permutation(ids) if mixed else ids
    together = nrmap.compute_maps(agent, states, [0.1, 1.0], ids, progress=False).by_episode
    for episode in (0, 1, 2):
        own = torch.from_numpy(ids == episode)
        alone = nrmap.compute_maps(agent, states[own], [0.01, 0.1, 1.0], ids[own], progress=False).by_episode
        for kind, temperature, map_ in together.each():
            assert np.array_equal(map_[episode], alone[kind.name, temperature][0])


def test_maps_come_back_from_their_file(tmp_path: Path) -> None:
    agent, states = dueling()
    maps = nrmap.compute_maps(agent, states, [0.1, 1.0], [0, 0, 7], progress=False)
    maps.save(tmp_path / "maps.npz")
    loaded = nrmap.Maps.load(str(tmp_path / "maps.npz"))
    assert (loaded.kinds, loaded.metadata) == (maps.kinds, maps.metadata)
    assert identical(loaded.by_episode, maps.by_episode)
    assert all(np.array_equal(maps["hmap", one], maps["hmap", 1.0]) for one in (np.float32(1), np.int64(1)))
    assert maps.difference(loaded, "kmap").value == 0
    (tmp_path / "maps.npz").write_bytes(b"")
    with pytest.raises(nrmap.NrmapError, match=r"maps\.npz"):
        nrmap.Maps.load(tmp_path / "maps.npz")


def nested(levels: int) -> object:
    return 0 if levels == 0 else [nested(levels - 1)]


@pytest.mark.parametrize(
    ("arrays", "metadata"),
    [
        (lambda array: array, {"deep": nested(49)}),
        (lambda array: array, {"too": nested(900)}),
        (lambda array: array, {"half": "\ud800"}),
        (lambda array: array, {"large": 10**50}),
        (lambda array: array * np.nan, {}),
        (lambda array: array + 1e101, {}),
        (lambda array: array.astype(np.float32), {}),
        (lambda array: array[..., 0], {}),
    ],
)
def test_what_load_would_refuse_is_not_saved(tmp_path: Path, arrays: Callable, metadata: dict) -> None:
    maps, path = nrmap.compute_maps(*dueling(), progress=False), tmp_path / "maps.npz"
    maps.save(path)
    before = path.read_bytes()
    changed = replace(maps.by_episode, arrays={name: arrays(map_) for name, map_ in maps.by_episode.arrays.items()})
    with pytest.raises(nrmap.NrmapError, match=r"^cannot write .*maps\.npz: ") as caught:
        nrmap.Maps(changed, metadata).save(path)
    assert str(caught.value).isprintable()
    assert path.read_bytes() == before


class Unreadable:
    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, s: compute_maps(a, s.numpy() / 255), r"states are float64 \[3, 4, 20, 22\]: expected uint8"),
        (lambda a, s: compute_maps(a, s[:0]), "N ≥ 1"),
        (lambda a, s: compute_maps(a, s[:, :2]), r"expected torch.uint8 \[N, 4, 20, 22\]"),
        (lambda a, s: compute_maps(a.function, s), r"agent is a QNetwork: expected nrmap.Agent"),
        (lambda a, s: compute_maps(a, s, 1.0), r"temperatures=1.0: expected a list"),
        (lambda a, s: compute_maps(a, s, [*range(1, 1002)]), "1001 temperatures: expected at most 1000"),
        (lambda a, s: compute_maps(a, Unreadable()), "states cannot be made an array: SystemExit: 3"),
        (lambda a, s: compute_maps(a, s)["kl", 10**400], r"no temperature 1000.*…: use maps\['kl', 1.0\]"),
        (lambda a, s: compute_maps(a, s, [0.1, 1.0])["kl", 0.9], r"use maps\['kl', 1.0\]"),
        (lambda a, s: nrmap.Maps(compute_maps(a, s).by_episode, 5), "metadata=5: expected a dict"),
        (lambda a, s: compute_maps(a, s, [1.0], np.array([0, 1, 2**63], np.uint64)), "whole numbers below 2⁶³"),
        (lambda a, s: compute_maps(a, s, [1.0], np.arange(3).astype("m8[s]")), "expected 3 whole numbers"),
        (lambda a, s: compute_maps(a, s, engine="incrementel"), "did you mean incremental"),
        (lambda a, s: compute_maps(a, s, ablated_value=256), "^ablated_value=256: expected a whole number from 0"),
        (lambda a, s: compute_maps(a, s, memory_budget=0), "^memory_budget=0: expected a number of bytes above 0"),
        (lambda a, s: compute_maps(a, s)["kmpa"], "unknown map 'kmpa': did you mean kmap"),
        (lambda a, s: compute_maps(a, s)["hmap"], r"needs a temperature: use maps\['hmap', 1.0\]"),
        (lambda a, s: compute_maps(a, s)["kmap", 1.0], r"use maps\['kmap'\]"),
        (lambda a, s: compute_maps(a, s).save("nowhere/maps.npz"), "no folder nowhere"),
        (lambda a, s: compute_maps(a, s).difference(compute_maps(a, s[:2]), "kmap"), "maps of other states_digest"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_clear_line(call: Callable[[nrmap.Agent, Tensor], object], message: str) -> None:
    agent, states = dueling()
    with pytest.raises(nrmap.NrmapError, match=message) as caught:
        call(agent, states)
    assert "\n" not in str(caught.value)


def test_a_network_put_into_training_mode_later_is_refused() -> None:
    agent, states = batch_normalised()
    nrmap.compute_maps(agent, states, progress=False)
    agent.train()
    with pytest.raises(nrmap.NrmapError, match=r"BatchNorm2d .* is in training mode"):
        nrmap.compute_maps(agent, states)
