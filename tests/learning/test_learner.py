"""One update against the losses written out, and learners that stop and go on."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from nrmap.learning.double_dqn import anchor_loss
from nrmap.learning.learner import Learner, LearnerSpec
from nrmap.learning.replay import Batch, Replay, ReplaySpec
from nrmap.learning.state_adversarial import hold_advantages
from nrmap.network import ConvSpec, NetworkSpec, QNetwork
from nrmap.perturbations import other_action_margin
from train.checkpoint import load_checkpoint, save_checkpoint

SPEC = LearnerSpec(
    batch_size=6,
    learning_rate=1e-3,
    learning_rate_final=1e-4,
    decay_from=0.5,
    adam_epsilon=1e-6,
    gradient_clip=0.0,
    target_update_period=4,
    double_q=True,
)
SIDE, ACTIONS, TOTAL_STEPS = 12, 3, 1_000
PRECISIONS = (torch.float32, torch.bfloat16)


def undecided_network(seed: int) -> QNetwork:
    """A random network that prefers no action on average, so that which is greedy depends on the state."""
    torch.manual_seed(seed)
    spec = NetworkSpec(2, SIDE, SIDE, ACTIONS, convs=(ConvSpec(4, 4, 2), ConvSpec(5, 3, 1)), hidden=16)
    network = QNetwork(spec)
    with torch.no_grad():
        q_values = network(make_batch(0, size=50).s_tm1.float() / 255)
        network.advantage[-1].bias -= q_values.mean(dim=0)
    return network


def make_learner(
    regulariser=None,
    *,
    seed: int = 0,
    device: str = "cpu",
    precision: torch.dtype = torch.float32,
    parent: QNetwork | None = None,
    anchor: float = 0.0,
    **changes,
) -> Learner:
    return Learner(
        online=undecided_network(seed).to(device),
        spec=replace(SPEC, **changes),
        regulariser=regulariser,
        total_steps=TOTAL_STEPS,
        generator=torch.Generator(device).manual_seed(11),
        precision=precision,
        parent=parent,
        anchor=anchor,
    )


def with_another_target(learner: Learner) -> Learner:
    """`learner` with a target network that prefers other actions than its online network."""
    learner.target_network.load_state_dict(undecided_network(5).state_dict())
    states = make_batch(0, size=50).s_tm1.float() / 255
    online, target = learner.online(states).argmax(1), learner.target_network(states).argmax(1)
    assert (online != target).float().mean() > 0.3
    return learner


def make_batch(seed: int, size: int = 6) -> Batch:
    rng = np.random.default_rng(seed)
    states = rng.integers(256, size=(2, size, 2, SIDE, SIDE)).astype(np.uint8)
    return Batch(
        s_tm1=torch.from_numpy(states[0]),
        a_tm1=torch.from_numpy(rng.integers(ACTIONS, size=size)),
        r_t=torch.from_numpy(rng.normal(size=size).astype(np.float32)),
        discount_t=torch.from_numpy(rng.choice([0.0, 0.9], size=size).astype(np.float32)),
        s_t=torch.from_numpy(states[1]),
        weights=torch.from_numpy(rng.random(size).astype(np.float32)),
        indices=np.arange(size),
    )


def weights_of(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.online.parameters()])


def plain_td_loss(online: QNetwork, target: QNetwork, batch: Batch, *, double_q: bool) -> torch.Tensor:
    """The weighted mean Huber loss, one sample after the other."""
    losses = []
    for b in range(len(batch.a_tm1)):
        with torch.no_grad():
            s_t = batch.s_t[b : b + 1].float() / 255
            chooser = online if double_q else target
            best = chooser(s_t).argmax()
            goal = batch.r_t[b] + batch.discount_t[b] * target(s_t)[0, best]
        estimate = online(batch.s_tm1[b : b + 1].float() / 255)[0, batch.a_tm1[b]]
        losses.append(batch.weights[b] * functional.smooth_l1_loss(estimate, goal))
    return torch.stack(losses).mean()


def plain_regulariser(online: QNetwork, batch: Batch, spec, *, radius: float, generator) -> torch.Tensor:
    """R of eq. 7 with PGD as Madry et al. write it, all gradients by the network itself."""
    states = batch.s_tm1.float() / 255
    a_star = online(states).argmax(1)

    def margins(points: torch.Tensor) -> torch.Tensor:
        q_values = online(points)
        return torch.stack(
            [
                max(q_values[b, a] for a in range(ACTIONS) if a != a_star[b]) - q_values[b, a_star[b]]
                for b in range(len(points))
            ]
        )

    delta = (2 * torch.rand(states.shape, generator=generator) - 1) * radius
    for _ in range(spec.pgd_steps):
        point = (states + delta).clamp(0, 1).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(margins(point).sum(), point)
        moved = point.detach() + radius * spec.pgd_step_fraction * gradient.sign()
        delta = (moved - states).clamp(-radius, radius)
    reached = margins((states + delta).clamp(0, 1).detach())
    if spec.hinge_reduction == "batch_sum":
        return torch.clamp(reached.sum(), min=-spec.hinge)
    return torch.clamp(reached, min=-spec.hinge).mean()


def gradients(loss: torch.Tensor, network: QNetwork) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters())))


@pytest.mark.parametrize("double_q", [True, False])
def test_ddqn_descends_the_td_loss(double_q):
    learner = with_another_target(make_learner(double_q=double_q, target_update_period=100))
    for seed in range(3):
        batch = make_batch(seed)
        before = copy.deepcopy(learner.online)
        loss = plain_td_loss(before, learner.target_network, batch, double_q=double_q)
        expected = gradients(loss, before)
        metrics = learner.update(batch, agent_step=0)
        assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("reduction", ["batch_sum", "per_sample_mean"])
@pytest.mark.parametrize("hinge", [0.02, 5.0])
def test_sa_ddqn_descends_td_plus_kappa_times_equation_7(reduction, hinge, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.7, hinge=hinge, hinge_reduction=reduction, pgd_steps=3)
    learner = with_another_target(make_learner(regulariser))
    for seed in range(3):
        batch, agent_step = make_batch(seed), 40 * (seed + 1)
        before = copy.deepcopy(learner.online)
        generator = torch.Generator()
        generator.set_state(learner.generator.get_state())
        radius = learner.robustness(agent_step)[1]
        assert 0 < radius <= regulariser.attack_epsilon
        td = plain_td_loss(before, learner.target_network, batch, double_q=True)
        robust = plain_regulariser(before, batch, regulariser, radius=radius, generator=generator)
        expected = gradients(td + 0.7 * robust, before)
        metrics = learner.update(batch, agent_step)
        assert metrics["robust_loss"].item() == pytest.approx(robust.item(), rel=1e-4, abs=1e-6)
        assert metrics["loss"].item() == pytest.approx((td + 0.7 * robust).item(), rel=1e-4)
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("robust", [False, True])
def test_an_anchor_adds_its_loss_and_never_moves(robust, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.0) if robust else None
    parent = undecided_network(3)
    unmoved = copy.deepcopy(parent.state_dict())
    free, held = make_learner(regulariser), make_learner(regulariser, parent=parent, anchor=0.3)
    batch = make_batch(0)
    before = copy.deepcopy(held.online)
    states = batch.s_tm1.float() / 255
    term = gradients(0.3 * anchor_loss(before(states), parent(states)), before)
    metrics = held.update(batch, agent_step=80)
    free.update(batch, agent_step=80)
    assert metrics["anchor_loss"] > 0
    for ours, plain, anchor in zip(held.online.parameters(), free.online.parameters(), term, strict=True):
        torch.testing.assert_close(ours.grad, plain.grad + anchor, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(parent.state_dict()[name], unmoved[name]) for name in unmoved)


def held_regulariser(tiny_regulariser, share):
    return tiny_regulariser(
        kappa=0.7, hinge=100.0, hinge_reduction="per_sample_mean", pgd_steps=3, hold_advantages=share
    )


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_held_advantages_leave_r_its_value_and_give_it_the_gradient_of_the_relative_slack(share, tiny_regulariser):
    regulariser = held_regulariser(tiny_regulariser, share)
    learner, batch, agent_step = with_another_target(make_learner(regulariser)), make_batch(0), 80
    before = copy.deepcopy(learner.online)
    generator = torch.Generator()
    generator.set_state(learner.generator.get_state())
    radius = learner.robustness(agent_step)[1]
    td = plain_td_loss(before, learner.target_network, batch, double_q=True)
    robust = plain_regulariser(before, batch, regulariser, radius=radius, generator=generator)
    q_values = before(batch.s_tm1.float() / 255)
    best = q_values.topk(2, dim=1).values  # [B, 2]
    slack = robust - (best[:, 1] - best[:, 0]).mean()
    advantages = q_values - q_values.mean(dim=1, keepdim=True)
    spread = ((advantages - advantages.mean(dim=0)) ** 2).mean().sqrt()
    held = slack / spread * spread.item()
    expected = gradients(td + 0.7 * (share * held + (1 - share) * robust), before)
    metrics = learner.update(batch, agent_step)
    assert metrics["robust_loss"].item() == pytest.approx(robust.item(), rel=1e-4, abs=1e-6)
    for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_with_held_advantages_neither_a_larger_lead_nor_a_smaller_scale_lowers_r():
    torch.manual_seed(0)
    q_values, moved = torch.randn(6, ACTIONS), 0.3 * torch.randn(6, ACTIONS)
    lead, scale = (torch.tensor(value, requires_grad=True) for value in (0.0, 1.0))
    a_star = q_values.argmax(dim=1)
    lead_of_one = torch.zeros(ACTIONS).index_fill(0, a_star[:1], 1.0)
    clean = scale * (q_values + lead * lead_of_one)
    worst = scale * (q_values + moved + lead * lead_of_one)
    rows = [0] * 6  # the same a* everywhere, as in a policy on its way to always one action
    margins = other_action_margin(worst[rows], a_star[rows])
    plain = torch.autograd.grad(margins.mean(), (lead, scale), retain_graph=True)
    assert all(gradient.abs() > 0.01 for gradient in plain)
    held = hold_advantages(other_action_margin(worst, a_star), clean, a_star, share=1.0)
    scale_gradient = torch.autograd.grad(held.mean(), scale, retain_graph=True)[0]
    assert scale_gradient.abs() < 1e-5
    of_one_action = a_star == a_star[0]
    lead_gradient = torch.autograd.grad(held[of_one_action].mean(), lead)[0]
    assert lead_gradient.abs() < 1e-5


@pytest.mark.parametrize("robust", [False, True])
def test_an_update_in_bfloat16_is_that_in_float32_but_for_rounding(robust, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.7) if robust else None
    exact, rounded = (with_another_target(make_learner(regulariser, precision=p)) for p in PRECISIONS)
    one, two = (learner.update(make_batch(0), agent_step=80) for learner in (exact, rounded))
    torch.testing.assert_close(two["td_errors"], one["td_errors"], rtol=0, atol=0.02)
    assert not torch.equal(one["td_errors"], two["td_errors"])
    gradient, with_noise = (
        torch.cat([parameter.grad.flatten() for parameter in learner.online.parameters()])
        for learner in (exact, rounded)
    )
    assert with_noise.dtype == torch.float32
    assert torch.cosine_similarity(gradient, with_noise, dim=0) > 0.98


def test_kappa_zero_is_ddqn(tiny_regulariser):
    vanilla, robust = make_learner(), make_learner(tiny_regulariser(kappa=0.0))
    for seed in range(8):
        one, two = (learner.update(make_batch(seed), agent_step=100 + seed) for learner in (vanilla, robust))
        assert "robust_loss" in two
        torch.testing.assert_close(one["td_errors"], two["td_errors"], rtol=1e-4, atol=1e-5)
    # Adam divides by the gradient's size, so rounding in a gradient near 0 shows in its weight.
    torch.testing.assert_close(weights_of(vanilla), weights_of(robust), rtol=1e-3, atol=1e-4)


def test_before_its_ramp_sa_ddqn_is_ddqn_bit_for_bit(tiny_regulariser):
    vanilla, robust = make_learner(), make_learner(tiny_regulariser(ramp_begin=50))
    for seed in range(5):
        vanilla.update(make_batch(seed), agent_step=10 * seed)
        robust.update(make_batch(seed), agent_step=10 * seed)
    assert torch.equal(weights_of(vanilla), weights_of(robust))


def test_adam_follows_its_schedule_and_its_definition():
    learner = make_learner(learning_rate=0.01, learning_rate_final=0.001, target_update_period=1000)
    first, second = [torch.zeros_like(weights_of(learner), dtype=torch.float64) for _ in range(2)]
    for t, agent_step in enumerate((0, 499, 500, 750, 999, 5000), start=1):
        rate = float(np.interp(agent_step, [500, 1000], [0.01, 0.001]))
        before = weights_of(learner).double()
        learner.update(make_batch(t), agent_step)
        gradient = torch.cat([parameter.grad.flatten() for parameter in learner.online.parameters()]).double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = rate * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-6)
        torch.testing.assert_close(weights_of(learner).double(), before - step, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_to_the_norm():
    free, clipped = make_learner(), make_learner(gradient_clip=0.01)
    for learner in (free, clipped):
        learner.update(make_batch(0), agent_step=0)
    one, two = (torch.cat([p.grad.flatten() for p in learner.online.parameters()]) for learner in (free, clipped))
    assert one.norm() > 0.02
    torch.testing.assert_close(two, one * (0.01 / one.norm()), rtol=1e-3, atol=1e-7)


def test_the_target_network_follows_every_fourth_update():
    learner = make_learner()
    start = copy.deepcopy(learner.online.state_dict())
    for update in range(1, 10):
        learner.update(make_batch(update), agent_step=0)
        target = learner.target_network.state_dict()
        if update % 4 == 0:
            start = copy.deepcopy(learner.online.state_dict())
        assert all(torch.equal(target[name], start[name]) for name in start)
    assert not any(parameter.requires_grad for parameter in learner.target_network.parameters())


def test_greedy_actions_are_the_argmax():
    learner, states = make_learner(), make_batch(0).s_tm1
    with torch.no_grad():
        expected = learner.online(states.float() / 255).argmax(1)
    assert torch.equal(learner.greedy_actions(states), expected)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, needs_cuda])


@pytest.mark.cuda
@needs_cuda
def test_cuda_learns_what_the_cpu_learns():
    here, there = make_learner(), make_learner(device="cuda")
    for seed in range(5):
        one, two = (learner.update(make_batch(seed), agent_step=0) for learner in (here, there))
        torch.testing.assert_close(one["td_errors"], two["td_errors"].cpu(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(weights_of(here), weights_of(there).cpu(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("updates", [0, 1, 6])
@pytest.mark.parametrize("robust", [False, True])
def test_a_learner_goes_on_from_a_file(updates, robust, device, tmp_path, tiny_regulariser):
    regulariser = tiny_regulariser() if robust else None
    learner = make_learner(regulariser, device=device)
    for seed in range(updates):
        learner.update(make_batch(seed), agent_step=100)
    save_checkpoint(tmp_path / "state.safetensors", {"learner": learner.get_state()})
    other = make_learner(regulariser, seed=99, device=device)
    other.generator.manual_seed(5)
    other.set_state(load_checkpoint(tmp_path / "state.safetensors")["learner"])
    # Convolutions on CUDA do not repeat to the last bit even within one process.
    same = torch.equal if device == "cpu" else functools.partial(torch.allclose, rtol=1e-3, atol=1e-4)
    for seed in range(updates, updates + 6):
        one, two = (each.update(make_batch(seed), agent_step=100) for each in (learner, other))
        assert same(one["td_errors"], two["td_errors"])
    assert same(weights_of(learner), weights_of(other))


CHAIN, GAMMA = 4, 0.9


def chain_state(position: int) -> np.ndarray:
    state = np.zeros((2, SIDE, SIDE), dtype=np.uint8)
    state[:, :, 3 * position : 3 * position + 3] = 255
    return state


@pytest.mark.parametrize("precision", PRECISIONS)
def test_learner_and_replay_find_the_values_of_a_chain(precision):
    # Action 1 walks on, the others stay; walking on from the last position ends the episode with reward 1.
    learner = make_learner(precision=precision, batch_size=16, target_update_period=20, learning_rate=3e-3)
    replay = Replay(ReplaySpec(300, 1, GAMMA, priority_exponent=0.6), num_envs=1, state_shape=(2, SIDE, SIDE))
    rng, one, position = np.random.default_rng(0), np.zeros(1, dtype=np.int64), 0
    replay.begin_episodes(one, chain_state(0)[None])
    for _ in range(250):
        action = int(rng.integers(ACTIONS))
        ended = action == 1 and position == CHAIN - 1
        position += action == 1 and not ended
        replay.append(
            one,
            actions=np.array([action]),
            rewards=np.array([float(ended)], dtype=np.float32),
            terminal=np.array([ended]),
            ended=np.array([ended]),
            next_states=chain_state(position)[None],
        )
        if ended:
            position = 0
            replay.begin_episodes(one, chain_state(0)[None])
    for update in range(300):
        batch = replay.sample(16, importance=1.0, rng=rng)
        errors = learner.update(batch, agent_step=update)["td_errors"]
        replay.update_priorities(batch.indices, errors.numpy())
    with torch.no_grad():
        q_values = learner.online(torch.from_numpy(np.stack([chain_state(k) for k in range(CHAIN)])).float() / 255)
    expected = np.array([[GAMMA ** (CHAIN - k), GAMMA ** (CHAIN - 1 - k), GAMMA ** (CHAIN - k)] for k in range(CHAIN)])
    np.testing.assert_allclose(q_values.numpy(), expected, atol=0.05)
