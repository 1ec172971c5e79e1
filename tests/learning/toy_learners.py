"""Small learners and batches, and their losses written out as the papers print them."""

from dataclasses import replace
from math import inf

import numpy as np
import torch
from summed_networks import two_ends
from torch.nn import functional

from nrmap.learning.learner import Learner, LearnerSpec
from nrmap.learning.replay import Batch
from nrmap.learning.state_adversarial import RegulariserSpec
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork

SPEC = LearnerSpec(
    batch_size=6, learning_rate=1e-3, learning_rate_final=1e-4, decay_from=0.5, adam_epsilon=1e-6, gradient_clip=0.0,
    target_update_period=4, double_q=True,
)  # fmt: skip
IBP = {"solver": "ibp", "pgd_steps": 0, "pgd_step_fraction": 0.0}  # what a regulariser with interval bounds takes
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


def make_learner(regulariser=None, *, seed=0, device="cpu", precision=torch.float32, parent=None, anchor=0.0, **spec):
    return Learner(
        online=undecided_network(seed).to(device), spec=replace(SPEC, **spec), regulariser=regulariser,
        total_steps=TOTAL_STEPS, generator=torch.Generator(device).manual_seed(11), precision=precision, parent=parent,
        anchor=anchor,
    )  # fmt: skip


def with_another_target(learner: Learner) -> Learner:
    """`learner` with a target network that prefers other actions than its online network."""
    other = undecided_network(5)
    learner.target_network.load_state_dict(other.state_dict())
    states = make_batch(0, size=50).s_tm1.float() / 255
    online, target = learner.online(states).argmax(1), other(states).argmax(1)
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


def weights_of(learner: Learner | QNetwork) -> torch.Tensor:
    network = learner.online if isinstance(learner, Learner) else learner
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def gradient_of(learner: Learner) -> torch.Tensor:
    """The gradient of the latest update."""
    return torch.cat([parameter.grad.flatten() for parameter in learner.online.parameters()])


def plain_td_loss(
    online: QNetwork, target: QNetwork, batch: Batch, *, double_q: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted mean Huber loss, one sample after the other, and the TD errors [B]."""
    losses, errors = [], []
    for b in range(len(batch.a_tm1)):
        with torch.no_grad():
            s_t = batch.s_t[b : b + 1].float() / 255
            best = (online if double_q else target)(s_t).argmax()
            goal = batch.r_t[b] + batch.discount_t[b] * target(s_t)[0, best]
        estimate = online(batch.s_tm1[b : b + 1].float() / 255)[0, batch.a_tm1[b]]
        losses.append(batch.weights[b] * functional.smooth_l1_loss(estimate, goal))
        errors.append((goal - estimate).detach())
    return torch.stack(losses).mean(), torch.stack(errors)


def margins_at(online: QNetwork, points: torch.Tensor, a_star: torch.Tensor) -> torch.Tensor:
    """The best other action's lead over a* at each point, [B]."""
    rows = zip(online(points), a_star, strict=True)
    return torch.stack([max(q[a] for a in range(ACTIONS) if a != best) - q[best] for q, best in rows])


def attacked_margins(
    online: QNetwork, states: torch.Tensor, spec: RegulariserSpec, radius: float, generator: torch.Generator
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The inner attack as its papers write it, all gradients by the network itself; and its early warnings."""
    kind, a_star = spec.inner_attack, online(states).argmax(1)

    def drawn() -> torch.Tensor:
        return torch.rand(states.shape, generator=generator)

    ball = inf if kind in ("n_fgsm", "random_steps") else radius
    points = [(states + (2 * drawn() - 1) * radius * (2 if kind == "n_fgsm" else 1)).clamp(0, 1)]
    gradients = []
    for _ in range(spec.pgd_steps):
        point = points[-1].detach().requires_grad_()
        gradients += torch.autograd.grad(margins_at(online, point, a_star).sum(), point)
        size = radius * spec.pgd_step_fraction * (2 * drawn() if kind == "random_steps" else 1)
        delta = (point.detach() + size * gradients[-1].sign() - states).clamp(-ball, ball)
        points.append((states + delta).clamp(0, 1))
    values = torch.stack([margins_at(online, point, a_star).detach() for point in points])  # [K + 1, B]
    worst = values.argmax(dim=0) if kind == "worst_of_path" else torch.full((len(states),), spec.pgd_steps)
    margins = margins_at(online, torch.stack(points)[worst, torch.arange(len(states))], a_star)
    flat = [gradient.flatten(1) for gradient in gradients]
    metrics = {
        "adversarial_flips": (margins > 0).float().mean(),
        "margin_fell": (margins < margins_at(online, states, a_star)).float().mean(),
        "gradient_sparsity": torch.stack([g.abs().sum() / g.square().sum().sqrt() for g in flat[0]]).mean(),
    }
    if len(flat) > 1:
        cosines = [g @ h / (g.norm() * h.norm()) for g, h in zip(flat[0], flat[1], strict=True)]
        metrics["gradient_cosine"] = torch.stack(cosines).mean()
    return margins, metrics


def bounded_margins(network: QNetwork, states: torch.Tensor, radius: float) -> torch.Tensor:
    """Interval bounds for one state, one pair of actions after the other, with two ends, not a centre."""
    margins, last = [], network.advantage[2]
    for state in states:
        a_star, leads = int(network(state[None]).argmax()), []
        low, high = two_ends((*network.features, *network.advantage[:2]), state[None], radius)
        for action in set(range(ACTIONS)) - {a_star}:
            row = last.weight[action] - last.weight[a_star]
            lead = (row.clamp(min=0) * high[0]).sum() + (row.clamp(max=0) * low[0]).sum()
            leads.append(lead + last.bias[action] - last.bias[a_star])
        margins.append(torch.stack(leads).max())
    return torch.stack(margins)


def plain_losses(
    learner: Learner, online: QNetwork, batch: Batch, agent_step: int, parent: QNetwork | None = None
) -> dict[str, torch.Tensor]:
    """What an update returns, and `descended`: its gradient is the update's, its value need not be."""
    states, q_tm1 = batch.s_tm1.float() / 255, online(batch.s_tm1.float() / 255)
    loss, errors = plain_td_loss(online, learner.target_network, batch, double_q=learner.spec.double_q)
    losses, descended = {"td_loss": loss, "td_errors": errors, "q_mean": q_tm1.mean()}, loss
    if (spec := learner.regulariser) is not None:
        radius, generator = learner.rates(agent_step).attack_epsilon, torch.Generator()
        assert 0 < radius <= spec.attack_epsilon
        generator.set_state(learner.generator.get_state())
        if spec.solver == "pgd":
            margins, metrics = attacked_margins(online, states, spec, radius, generator)
        else:
            margins = bounded_margins(online, states, radius)
            metrics = {"uncertified": (margins > 0).float().mean()}
        losses |= metrics
        of_sum = spec.hinge_reduction == "batch_sum"
        robust = margins.sum().clamp(min=-spec.hinge) if of_sum else margins.clamp(min=-spec.hinge).mean()
        losses["robust_loss"] = robust
        loss, held = loss + spec.kappa * robust, robust
        if spec.hold_advantages:  # the gradient of the slack relative to the spread, where no margin meets the hinge
            slack = robust - margins_at(online, states, q_tm1.argmax(1)).mean()
            advantages = q_tm1 - q_tm1.mean(dim=1, keepdim=True)
            spread = ((advantages - advantages.mean(dim=0)) ** 2).mean().sqrt()
            held = slack / spread * spread.item()
        descended = descended + spec.kappa * (spec.hold_advantages * held + (1 - spec.hold_advantages) * robust)
    if parent is not None:
        apart = q_tm1 - parent(states).detach()  # [B, A]
        losses["anchor_loss"] = ((apart - apart.mean(dim=1, keepdim=True)) ** 2).sum(dim=1).mean() / 2
        loss, descended = (each + learner.anchor * losses["anchor_loss"] for each in (loss, descended))
    return {**losses, "loss": loss, "descended": descended}
