"""The gradient of one update against that of the losses written out, for DDQN, SA-DDQN and the anchor."""

import copy

import pytest
import torch
import toy_learners as toys
from toy_learners import IBP, PRECISIONS, gradient_of, make_batch, make_learner, undecided_network, weights_of

NO_HINGE = {"hinge": 100.0, "hinge_reduction": "per_sample_mean"}
REGULARISERS = (
    *({"hinge": hinge, "hinge_reduction": kind} for kind in ("batch_sum", "per_sample_mean") for hinge in (0.02, 5.0)),
    {**NO_HINGE, "kappa": 0.0},
    {**NO_HINGE, "inner_attack": "worst_of_path", "pgd_step_fraction": 1.5},
    {**NO_HINGE, "inner_attack": "n_fgsm", "pgd_steps": 1, "pgd_step_fraction": 1.0},
    {**NO_HINGE, "inner_attack": "random_steps"},
    *({**NO_HINGE, "hold_advantages": fraction} for fraction in (1.0, 0.25)),
    *({**IBP, "ramp_steps": 100, "hinge": 0.5, "hinge_reduction": kind} for kind in ("batch_sum", "per_sample_mean")),
)


def assert_descends(learner, parent=None, *, gradient_rtol=1e-3, gradient_atol=1e-5, loss_rtol=1e-4) -> None:
    """Updates during and after the ramp have the losses and the gradients of the plain ones."""
    toys.with_another_target(learner)
    for seed in range(3):
        batch, agent_step, before = make_batch(seed), 40 * (seed + 1), copy.deepcopy(learner.online)
        losses = toys.plain_losses(learner, before, batch, agent_step, parent)
        expected = torch.autograd.grad(losses.pop("descended"), list(before.parameters()))
        metrics = learner.update(batch, agent_step)
        for name, loss in losses.items():
            torch.testing.assert_close(metrics[name], loss.detach(), rtol=loss_rtol, atol=1e-6, msg=name)
        for parameter, gradient in zip(learner.online.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=gradient_rtol, atol=gradient_atol)


@pytest.mark.parametrize("double_q", [True, False])
def test_ddqn_descends_the_td_loss(double_q):
    learner = make_learner(double_q=double_q)
    assert_descends(learner, gradient_rtol=1e-4, gradient_atol=1e-6, loss_rtol=1e-5)


@pytest.mark.parametrize("changes", REGULARISERS, ids=str)
def test_sa_ddqn_descends_td_plus_kappa_times_equation_7(changes, tiny_regulariser):
    learner = make_learner(tiny_regulariser(**{"kappa": 0.7, "pgd_steps": 3, **changes}))
    random_numbers = learner.generator.get_state()
    assert_descends(learner)
    draws_none = changes.get("solver") == "ibp"
    assert torch.equal(learner.generator.get_state(), random_numbers) == draws_none


@pytest.mark.parametrize("robust", [False, True])
def test_an_anchor_adds_its_loss_and_never_moves(robust, tiny_regulariser):
    parent = undecided_network(3)
    unmoved = copy.deepcopy(parent.state_dict())
    learner = make_learner(tiny_regulariser(kappa=0.7) if robust else None, parent=parent, anchor=0.3)
    assert_descends(learner, parent)
    assert all(torch.equal(parent.state_dict()[name], unmoved[name]) for name in unmoved)


@pytest.mark.parametrize("robust", [False, True])
def test_an_update_in_bfloat16_is_that_in_float32_but_for_rounding(robust, tiny_regulariser):
    regulariser = tiny_regulariser(kappa=0.7) if robust else None
    exact, rounded = (toys.with_another_target(make_learner(regulariser, precision=p)) for p in PRECISIONS)
    one, two = (learner.update(make_batch(0), agent_step=80) for learner in (exact, rounded))
    torch.testing.assert_close(two["td_errors"], one["td_errors"], rtol=0, atol=0.02)
    assert not torch.equal(one["td_errors"], two["td_errors"])
    gradient, with_noise = (gradient_of(learner) for learner in (exact, rounded))
    assert with_noise.dtype == torch.float32
    assert torch.cosine_similarity(gradient, with_noise, dim=0) > 0.98


@pytest.mark.parametrize(
    "changes",
    [
        *({"inner_attack": kind} for kind in ("pgd", "worst_of_path", "random_steps")),
        {**NO_HINGE, "inner_attack": "n_fgsm", "pgd_steps": 1},
        IBP,
    ],
    ids=str,
)
def test_before_its_ramp_any_robust_learner_is_ddqn_bit_for_bit(changes, tiny_regulariser):
    vanilla, robust = make_learner(), make_learner(tiny_regulariser(ramp_begin=50, **changes))
    for agent_step in (0, 10, 20, 30, 40, 60):
        for learner in (vanilla, robust):
            learner.update(make_batch(agent_step), agent_step)
        assert torch.equal(weights_of(vanilla), weights_of(robust)) == (agent_step < 50)
