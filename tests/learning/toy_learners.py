"""Small learners and batches, and their losses written out as the papers print them."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from nrmap.learning.learner import Learner, LearnerSpec
from nrmap.learning.replay import Batch
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork

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
