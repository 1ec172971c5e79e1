"""The SA regulariser, eq. 7: its attack against closed forms, its hinge by hand, its frozen network."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nrmap.learning.inner_attack import InnerAttack
from nrmap.learning.state_adversarial import hinge_loss
from nrmap.policies.network import ConvSpec, NetworkSpec, QNetwork, frozen
from nrmap.robustness.perturbations import other_action_margin

SMALL_CONVS = (ConvSpec(4, 4, 2), ConvSpec(5, 3, 1))


def random_network(*, side: int = 12, channels: int = 1, actions: int = 3, dueling: bool = True, **spec) -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(
        NetworkSpec(channels, side, side, actions, dueling=dueling, **{"convs": SMALL_CONVS, "hidden": 16, **spec})
    ).double()


def linear_network(*, dueling: bool) -> QNetwork:
    """Two actions; no ReLU is ever at rest on [0, 1], so the Q-values are affine in the state."""
    network = random_network(side=8, actions=2, dueling=dueling)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.fill_(50.0 if name in ("features.0.bias",) else 500.0)
    return network


def attacked(
    network: QNetwork, states: torch.Tensor, actions: torch.Tensor, *, kind="pgd", steps=5, step_fraction=0.5, **changes
) -> torch.Tensor:
    arguments = {"attack_epsilon": 0.1, "generator": torch.Generator().manual_seed(1)}
    return InnerAttack(kind, steps, step_fraction)(network, states, actions, **{**arguments, **changes})[0]


@pytest.mark.parametrize("dueling", [False, True])
def test_pgd_reaches_the_maximum_of_a_linear_network(dueling):
    network = linear_network(dueling=dueling)
    generator = torch.Generator().manual_seed(0)
    # Pixels near 0 and 1 too, where the box is cut off.
    states = torch.rand(6, 1, 8, 8, generator=generator, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    actions = torch.tensor([0, 1, 0, 1, 0, 1])

    def margin(points: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return other_action_margin(network(points), actions)

    basis = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    with torch.no_grad():
        rows = network(basis) - network(torch.zeros(1, 1, 8, 8, dtype=torch.float64))  # [64, 2]
    ascent = (rows[:, 1] - rows[:, 0]).reshape(1, 8, 8)
    directions = torch.where(actions[:, None, None, None] == 0, ascent, -ascent)
    corner = (states + 0.1 * directions.sign()).clamp(0, 1)

    perturbed = attacked(network, states, actions)
    torch.testing.assert_close(perturbed, corner.clamp(states - 0.1, states + 0.1), rtol=0, atol=1e-9)
    torch.testing.assert_close(margin(perturbed), margin(corner), rtol=1e-9, atol=1e-9)
    assert (margin(perturbed) > margin(states)).all()


@given(
    attack_epsilon=st.floats(1e-4, 1), steps=st.integers(1, 4), fraction=st.floats(0.05, 3), seed=st.integers(0, 10**6)
)
def test_the_attack_stays_in_the_ball_and_in_the_unit_box(attack_epsilon, steps, fraction, seed):
    network = random_network().float()
    generator = torch.Generator().manual_seed(seed)
    states = torch.rand(3, 1, 12, 12, generator=generator).mul(2).sub(0.5).clamp(0, 1)
    perturbed = attacked(
        network, states, network(states).argmax(1),
        attack_epsilon=attack_epsilon, steps=steps, step_fraction=fraction, generator=generator,
    )  # fmt: skip
    assert (perturbed - states).abs().max() <= attack_epsilon + 1e-6
    assert perturbed.min() >= 0
    assert perturbed.max() <= 1


def test_the_attack_leaves_no_trace_in_the_network():
    network = random_network()
    states = torch.rand(4, 1, 12, 12, dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    perturbed = attacked(network, states, network(states).argmax(1))
    assert not perturbed.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_worst_of_path_takes_the_largest_margin_of_the_path_of_pgd():
    network, generator = random_network(), torch.Generator().manual_seed(3)
    states = torch.rand(64, 1, 12, 12, generator=generator, dtype=torch.float64)
    actions = network(states).argmax(1)
    # From the same random numbers PGD with k steps ends in point k of the path; k = 0 is the random start.
    tiny = attacked(network, states, actions, steps=1, step_fraction=1e-12)
    path = [tiny, *(attacked(network, states, actions, steps=k, step_fraction=1.5) for k in (1, 2, 3))]
    margins = torch.stack([other_action_margin(network(points), actions) for points in path])  # [4, 64]
    reached = attacked(network, states, actions, kind="worst_of_path", steps=3, step_fraction=1.5)
    torch.testing.assert_close(other_action_margin(network(reached), actions), margins.amax(dim=0), rtol=0, atol=1e-9)
    assert len(set(margins.argmax(dim=0).tolist())) > 1


@pytest.mark.parametrize(("kind", "steps", "furthest"), [("n_fgsm", 1, 3.0), ("random_steps", 2, 3.0)])
def test_attacks_without_a_projection_leave_the_ball_but_not_the_screen(kind, steps, furthest):
    network, epsilon = random_network(), 0.01
    states = torch.rand(16, 1, 12, 12, dtype=torch.float64)
    fraction = 1.0 if kind == "n_fgsm" else 0.5
    reached = attacked(
        network, states, network(states).argmax(1), kind=kind, steps=steps, step_fraction=fraction,
        attack_epsilon=epsilon,
    )  # fmt: skip
    distance = ((reached - states) / epsilon).abs()
    assert 2 < distance.max() <= furthest + 1e-6
    assert reached.min() >= 0
    assert reached.max() <= 1
    sizes = distance.flatten().unique()
    assert len(sizes) > 1000  # random in every pixel


def test_the_warnings_are_those_of_the_first_two_gradients():
    network, generator = random_network(), torch.Generator().manual_seed(3)
    states = torch.rand(8, 1, 12, 12, generator=generator, dtype=torch.float64)
    actions = network(states).argmax(1)
    first, second = (
        attacked(network, states, actions, steps=k, step_fraction=f) for k, f in ((1, 1e-12), (1, 0.5))
    )  # fmt: skip
    cosines, sparsities = [], []
    for b in range(8):
        gradients = []
        for points in (first, second):
            point = points[b : b + 1].clone().requires_grad_()
            gradients.append(
                torch.autograd.grad(other_action_margin(network(point), actions[b : b + 1]).sum(), point)[0].flatten()
            )
        cosines.append(gradients[0] @ gradients[1] / (gradients[0].norm() * gradients[1].norm()))
        sparsities.append(gradients[0].abs().sum() / gradients[0].square().sum().sqrt())
    for steps in (2, 3):
        _, warnings = InnerAttack("pgd", steps, 0.5)(
            network, states, actions, attack_epsilon=0.1, generator=torch.Generator().manual_seed(1)
        )
        torch.testing.assert_close(warnings["gradient_cosine"], torch.stack(cosines).mean(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(warnings["gradient_sparsity"], torch.stack(sparsities).mean(), rtol=1e-6, atol=1e-6)


def test_every_roll_back_adds_a_step_and_any_corner_stays_in_reach():
    attack = InnerAttack("n_fgsm", 1, 1.0)
    assert attack.strengthened(0) == attack
    assert attack.strengthened(1) == InnerAttack("pgd", 3, 2 / 3)
    assert InnerAttack("pgd", 2, 0.8).strengthened(2) == InnerAttack("pgd", 4, 0.5)
    assert attack.strengthened(99) == InnerAttack("pgd", 10, 0.2)


def test_the_attack_follows_its_generator():
    network = random_network()
    states = torch.rand(2, 1, 12, 12, dtype=torch.float64)
    actions = network(states).argmax(1)
    one, two, other = (
        attacked(network, states, actions, steps=1, step_fraction=0.01, generator=torch.Generator().manual_seed(seed))
        for seed in (7, 7, 8)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("side", "channels", "convs"),
    [
        (12, 1, SMALL_CONVS),  # the first stride divides kernel and screen: the first convolution is unshuffled
        (12, 3, SMALL_CONVS),
        (13, 1, SMALL_CONVS),  # the screen is odd
        (12, 2, (ConvSpec(4, 5, 2), ConvSpec(5, 3, 1))),  # the kernel is odd
        (12, 1, (ConvSpec(4, 3, 1),)),  # stride 1
        (36, 4, (ConvSpec(32, 8, 4), ConvSpec(64, 4, 2), ConvSpec(64, 3, 1))),  # Nature
    ],
)
@pytest.mark.parametrize("dueling", [False, True])
def test_the_frozen_network_equals_the_network(side, channels, convs, dueling):
    network = random_network(side=side, channels=channels, dueling=dueling, convs=convs)
    states = torch.rand(5, channels, side, side, dtype=torch.float64)
    outcomes = []
    for function in (network, frozen(network)):
        point = states.clone().requires_grad_()
        q_values = function(point)
        (gradient,) = torch.autograd.grad((q_values * torch.arange(15.0).reshape(5, 3)).sum(), point)
        outcomes.append((q_values.detach(), gradient))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-12, atol=1e-12)
    assert not frozen(network)(states).requires_grad


def test_hinge_by_hand():
    margins = torch.tensor([0.5, -3.0, -0.25, -1.5])
    assert hinge_loss(margins, hinge=1.0, reduction="per_sample_mean").item() == pytest.approx((0.5 - 1 - 0.25 - 1) / 4)
    assert hinge_loss(margins, hinge=0.0, reduction="per_sample_mean").item() == pytest.approx(0.5 / 4)
    assert hinge_loss(margins, hinge=1.0, reduction="batch_sum").item() == pytest.approx(-1.0)
    assert hinge_loss(margins, hinge=9.0, reduction="batch_sum").item() == pytest.approx(-4.25)
    assert hinge_loss(torch.tensor([2.0, 0.5]), hinge=1.0, reduction="batch_sum").item() == pytest.approx(2.5)


def test_the_two_reductions_clamp_different_things():
    margins = torch.tensor([4.0, -5.0], requires_grad=True)
    # One sample is robust beyond the hinge and is left alone; the other is pushed.
    hinge_loss(margins, hinge=1.0, reduction="per_sample_mean").backward()
    assert margins.grad.tolist() == [0.5, 0.0]
    margins.grad = None
    # The sum, −1 · (1 + 1e-6) here, is beyond the hinge: nobody is pushed.
    hinge_loss(margins, hinge=1.0 - 1e-6, reduction="batch_sum").backward()
    assert margins.grad.tolist() == [0.0, 0.0]
    margins.grad = None
    hinge_loss(margins, hinge=2.0, reduction="batch_sum").backward()
    assert margins.grad.tolist() == [1.0, 1.0]
