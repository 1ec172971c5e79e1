"""Maps of trained policies on a real state, all its pixels, against the paper's loops in float64 and against captum."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from paper_algorithms import algorithms_1_and_2
from torch import Tensor

from nrmap.ablation import AblationSpec, make_engine
from nrmap.atari.envs import SeededVectorEnv
from nrmap.maps.sweep import sweep_maps
from nrmap.policies.network import STATE_SCALE
from nrmap.policies.policy import Policy, load_policy

REFERENCE = Path(__file__).parents[2] / "outputs" / "reference"
POLICIES = sorted(REFERENCE.glob("*/*/*/seed0/policy.safetensors"))
TEMPERATURES = (0.1, 1.0)
BATCH = 196

# Two float64 networks run on 7,056 ablated states each.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Case:
    """A policy, a state, and float64 Q-values of the state and of every ablation of it."""

    policy: Policy
    state: Tensor  # uint8 [C, H, W]
    network: Callable[[Tensor], Tensor]  # scaled states to Q-values, in float64
    clean: Tensor  # [A]
    ablated: Tensor  # [H, W, A]

    @property
    def tolerance(self) -> Tensor:
        """[H, W]: Q-values that are no further apart are ties."""
        return 1e-5 * self.ablated.abs().amax(dim=-1).clamp(min=1)

    def lookup(self) -> Callable[[Tensor], Tensor]:
        """The float64 network, looked up: it has seen every ablated state before, in batches."""
        height, width = self.state.shape[1:]
        answers = {self.state.numpy().tobytes(): self.clean}
        for row, column in np.ndindex(height, width):
            augmented = self.state.clone()
            augmented[:, row, column] = 0
            answers.setdefault(augmented.numpy().tobytes(), self.ablated[row, column])
        return lambda states: torch.stack([answers[state.numpy().tobytes()] for state in states])


def undecided_state(policy: Policy) -> Tensor:
    """The state of a game of the policy with the smallest lead that is no tie, so that pixels flip its action."""
    game = SeededVectorEnv(policy.env, 1)
    states, _ = game.begin(np.ones(1, dtype=bool), [11])
    played, gaps = [], []
    with torch.inference_mode():
        for _ in range(1000):
            q_values = policy(torch.from_numpy(states))
            best, second = q_values[0].topk(2).values.tolist()
            gap = (best - second) / max(1.0, float(q_values.abs().max()))
            played.append(states[0].copy())
            gaps.append(gap if gap > 4e-4 else np.inf)  # a smaller lead leaves many pixels within 1e-5 of a tie
            states = game.step(q_values.argmax(dim=1).numpy()).states
    return torch.from_numpy(played[int(np.argmin(gaps))])


@pytest.fixture(scope="module", params=POLICIES, ids=lambda path: "/".join(path.parts[-4:-1]))
def case(request: pytest.FixtureRequest) -> Case:
    policy = load_policy(request.param)
    state = undecided_state(policy)
    network = copy.deepcopy(policy.network).double()
    scaled = (state.float() * STATE_SCALE).double()
    height, width = state.shape[1:]
    with torch.inference_mode():
        parts = []
        for pixels in torch.arange(height * width).split(BATCH):
            batch = scaled.repeat(len(pixels), 1, 1, 1)
            batch[torch.arange(len(pixels)), :, pixels // width, pixels % width] = 0
            parts.append(network(batch))
        return Case(policy, state, network, network(scaled[None])[0], torch.cat(parts).unflatten(0, (height, width)))


def test_there_are_policies() -> None:
    # The other tests pass without any case.
    assert POLICIES, f"no policy.safetensors under {REFERENCE}"


@pytest.mark.parametrize("engine", ["incremental", "dense"])
def test_the_algorithms_of_the_paper(case: Case, engine: str) -> None:
    height, width = case.state.shape[1:]
    assert height * width == 7056
    source = make_engine(case.policy, spec=AblationSpec(), engine=engine, differences_only=engine == "incremental")
    (chunk,) = source.ablate(case.state[None])
    maps = sweep_maps([chunk], episode_ids=[0], temperatures=TEMPERATURES, rounding_floor=source.rounding_floor).total()
    lookup = case.lookup()
    floor = source.rounding_floor  # of one ΔQ
    for temperature in TEMPERATURES:
        expected = algorithms_1_and_2(lookup, case.state[None], temperature)
        for kind in ("hmap", "kl"):
            found = maps[kind, temperature]
            np.testing.assert_allclose(found, expected[kind], rtol=0, atol=2 * floor / temperature)
        np.testing.assert_allclose(maps["margin_drop"], expected["margin_drop"], rtol=0, atol=4 * floor)
    h, k, flips = (expected[kind] for kind in ("hmap", "kmap", "flip_map"))
    assert h.max() - h.min() > 10 * floor, "HMAP is as good as flat"
    assert (maps["kmap"] >= 0).all()
    assert (k >= 0).all()
    assert (k > 0).sum() > 10, "no action of this state depends on single pixels"

    # The greedy action agrees wherever float64 has no tie.
    lead = case.ablated.topk(2, dim=-1).values
    tied = (lead[..., 0] - lead[..., 1] <= case.tolerance).numpy()
    differs = (chunk.q_values[0].argmax(dim=-1) != case.ablated.argmax(dim=-1)).numpy()
    assert not (differs & ~tied).any()
    np.testing.assert_allclose(maps["kmap"][~tied], k[~tied], rtol=0, atol=2 * floor)
    assert np.array_equal(maps["flip_map"][~tied], flips[~tied])
    # At a tie K is the cost of one of the tied actions.
    costs = (case.clean.max() - case.clean).numpy()
    may_win = (case.ablated >= lead[..., :1] - case.tolerance[..., None]).numpy()
    for row, column in np.argwhere(tied):
        assert np.abs(maps["kmap"][row, column] - costs[may_win[row, column]]).min() <= 2 * floor
    assert tied.sum() < 0.01 * tied.size, f"{tied.sum()} ties of {tied.size} pixels leave too few to compare"
