"""SA-DDQN with interval bounds: its update written out, and that it ends in agents that can be certified."""

import copy

import pytest
import torch
from torch import nn

from nrmap.learning.double_dqn import double_q_targets, td_loss
from nrmap.learning.learner import Learner, LearnerSpec
from nrmap.learning.replay import Batch
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork, frozen
from nrmap.robustness.attacks import pgd
from nrmap.robustness.certify import IntervalCertifier
from train.checkpoint import load_checkpoint, save_checkpoint
from train.trainer import Trainer

SPEC = LearnerSpec(
    batch_size=6,
    learning_rate=1e-3,
    learning_rate_final=1e-3,
    decay_from=1.0,
    adam_epsilon=1e-6,
    gradient_clip=0.0,
    target_update_period=50,
    double_q=True,
)
ACTIONS, SIDE = 3, 12


def interval_regulariser(**changes) -> RegulariserSpec:
    values = {
        "kappa": 0.7,
        "hinge": 0.5,
        "hinge_reduction": "per_sample_mean",
        "attack_epsilon": 0.05,
        "ramp_begin": 0,
        "ramp_steps": 100,
        "solver": "ibp",
    }
    return RegulariserSpec(**{**values, **changes})


def make_learner(regulariser: RegulariserSpec | None, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    network = QNetwork(NetworkSpec(1, SIDE, SIDE, ACTIONS, convs=(ConvSpec(4, 4, 2), ConvSpec(5, 3, 1)), hidden=16))
    return Learner(
        online=network,
        spec=SPEC,
        regulariser=regulariser,
        total_steps=1_000,
        generator=torch.Generator().manual_seed(11),
    )


def make_batch(seed: int, size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    # Black and white pixels too, where the ball is cut off.
    states = torch.randint(-80, 336, (2, size, 1, SIDE, SIDE), generator=generator).clamp(0, 255).to(torch.uint8)
    return Batch(
        s_tm1=states[0],
        a_tm1=torch.randint(ACTIONS, (size,), generator=generator),
        r_t=torch.randn(size, generator=generator),
        discount_t=torch.full((size,), 0.9),
        s_t=states[1],
        weights=torch.rand(size, generator=generator),
        indices=None,
    )


def same_weights(one: Learner, two: Learner) -> bool:
    parameters = zip(one.online.parameters(), two.online.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in parameters)


def worst_margins(network: QNetwork, states: torch.Tensor, radius: float) -> torch.Tensor:
    """One state, one layer, one pair of actions after the other, with two ends instead of a centre."""
    margins = []
    for state in states:
        a_star = int(network(state[None]).argmax())
        low, high = (state[None] - radius).clamp(min=0), (state[None] + radius).clamp(max=1)
        for layer in (*network.features, *network.advantage[:2]):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                apply = layer._conv_forward if isinstance(layer, nn.Conv2d) else nn.functional.linear
                rising, falling, none = layer.weight.clamp(min=0), layer.weight.clamp(max=0), None
                low, high = (
                    apply(low, rising, layer.bias) + apply(high, falling, none),
                    apply(high, rising, layer.bias) + apply(low, falling, none),
                )
            else:
                low, high = layer(low), layer(high)
        last = network.advantage[2]
        leads = []
        for action in set(range(ACTIONS)) - {a_star}:
            row = last.weight[action] - last.weight[a_star]
            lead = (row.clamp(min=0) * high[0]).sum() + (row.clamp(max=0) * low[0]).sum()
            leads.append(lead + last.bias[action] - last.bias[a_star])
        margins.append(torch.stack(leads).max())
    return torch.stack(margins)


@pytest.mark.parametrize("reduction", ["per_sample_mean", "batch_sum"])
@pytest.mark.parametrize("agent_step", [40, 500])
def test_an_update_descends_td_plus_kappa_times_equation_7(reduction, agent_step):
    learner = make_learner(interval_regulariser(hinge_reduction=reduction))
    for seed in range(3):
        batch, before = make_batch(seed), copy.deepcopy(learner.online)
        states = batch.s_tm1.float() / 255
        targets = double_q_targets(
            online=before, target_network=learner.target_network, s_t=batch.s_t.float() / 255,
            r_t=batch.r_t, discount_t=batch.discount_t,
        )  # fmt: skip
        td, _ = td_loss(q_tm1=before(states), a_tm1=batch.a_tm1, targets=targets, weights=batch.weights)
        margins = worst_margins(before, states, learner.regulariser_schedule(agent_step)[1])
        robust = margins.clamp(min=-0.5).mean() if reduction == "per_sample_mean" else margins.sum().clamp(min=-0.5)
        expected = torch.autograd.grad(td + 0.7 * robust, list(before.parameters()))
        metrics = learner.update(batch, agent_step)
        assert metrics["robust_loss"].item() == pytest.approx(robust.item(), rel=1e-4, abs=1e-6)
        assert metrics["loss"].item() == pytest.approx((td + 0.7 * robust).item(), rel=1e-4)
        assert metrics["uncertified"].item() == pytest.approx((margins > 0).float().mean().item())
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_before_its_ramp_it_is_ddqn_bit_for_bit():
    vanilla, certified = make_learner(None), make_learner(interval_regulariser(ramp_begin=50))
    for seed in range(5):
        vanilla.update(make_batch(seed), agent_step=10 * seed)
        certified.update(make_batch(seed), agent_step=10 * seed)
    assert same_weights(vanilla, certified)


def test_the_bounds_draw_no_random_numbers():
    learner = make_learner(interval_regulariser())
    before = learner.generator.get_state()
    learner.update(make_batch(0), agent_step=500)
    assert torch.equal(learner.generator.get_state(), before)


@pytest.mark.parametrize("updates", [0, 5])
def test_a_learner_goes_on_from_a_file_bit_for_bit(updates, tmp_path):
    learner, other = make_learner(interval_regulariser()), make_learner(interval_regulariser(), seed=99)
    for seed in range(updates):
        learner.update(make_batch(seed), agent_step=20 * seed)
    save_checkpoint(tmp_path / "state.safetensors", {"learner": learner.get_state()})
    other.set_state(load_checkpoint(tmp_path / "state.safetensors")["learner"])
    for seed in range(updates, updates + 6):
        one, two = (each.update(make_batch(seed), agent_step=20 * seed) for each in (learner, other))
        assert torch.equal(one["td_errors"], two["td_errors"])
    assert same_weights(learner, other)


class FixedNoise:
    """Random starts for an attack on states that are of no episode."""

    def uniform(self, like: torch.Tensor, draw: int, rows: torch.Tensor | None = None) -> torch.Tensor:
        return torch.rand(like.shape, generator=torch.Generator().manual_seed(draw)) * 2 - 1


def test_training_on_the_bounds_ends_in_a_network_that_is_certified():
    """With κ = 0 nothing is proven and the attack succeeds; with κ everything is, and it fails everywhere."""
    batch, radius = make_batch(0, size=24), 0.1
    states = batch.s_tm1.float() / 255
    shares, flips = {}, {}
    for kappa in (0.0, 1.0):
        learner = make_learner(interval_regulariser(kappa=kappa, attack_epsilon=radius))
        for update in range(150):
            learner.update(batch, agent_step=update)
        q_values = frozen(learner.online)
        result = pgd(20)(q_values, states, attack_epsilon=radius, noise=FixedNoise())
        certified = IntervalCertifier(learner.online)(states, result.clean_actions, radius)
        shares[kappa], flips[kappa] = certified.double().mean().item(), result.flipped.double().mean().item()
    assert (shares[0.0], shares[1.0]) == (0.0, 1.0)
    assert flips[0.0] > 0.1
    assert flips[1.0] == 0


def test_a_run_stops_and_goes_on_bit_for_bit(tiny_settings, tmp_path):
    """The whole training loop on a game, saved in the middle of the ramp of the radius."""
    settings = tiny_settings(method="sa_ddqn_ibp")
    middle = settings.steps // 2
    regulariser = interval_regulariser(ramp_begin=middle - 20, ramp_steps=40, kappa=0.1)
    settings = tiny_settings(method="sa_ddqn_ibp", regulariser=regulariser)
    whole, uncertified = Trainer(settings, device=torch.device("cpu")), []
    for iteration in whole.run():
        if iteration.agent_step == middle:
            assert 0 < whole.learner.regulariser_schedule(middle)[1] < regulariser.attack_epsilon
            save_checkpoint(tmp_path / "state.safetensors", whole.get_state())
        if iteration.agent_step > middle:
            uncertified.append(whole.metrics().get("uncertified"))
    resumed = Trainer(settings, device=torch.device("cpu"))
    resumed.set_state(load_checkpoint(tmp_path / "state.safetensors"))
    resumed.metrics()
    again = [resumed.metrics().get("uncertified") for _ in resumed.run()]
    assert again[1:] == uncertified[1:]
    assert {type(share) for share in again} == {float}
    assert resumed.agent_step == whole.agent_step == settings.steps
    assert same_weights(whole.learner, resumed.learner)
