"""What is certified holds for the float32 network as it is evaluated, near ties above all."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_points import points_of_the_ball
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_policies import FREEWAY, toy_policy

from nrmap.attacks import StateNoise, attack_named
from nrmap.bounds import float32_error, margin_bounds, margins_of, propagate, q_difference_bounds, state_box
from nrmap.certify import IntervalCertifier, RememberingCertifier
from nrmap.envs import EnvSpec, SeededVectorEnv
from nrmap.errors import NrmapError
from nrmap.evaluation import WORST_CASE, AttackRun, EvaluationSettings, evaluate
from nrmap.network import ConvSpec, NetworkSpec, QNetwork, frozen
from nrmap.perturbations import other_action_margin, projected_gradient_ascent
from nrmap.players import AttackedPlayer
from nrmap.policy import Policy, load_policy
from nrmap.records import select
from nrmap.rollout import episode_seeds, play

SPECS = (
    NetworkSpec(1, 12, 12, 3, convs=(ConvSpec(4, 4, 2), ConvSpec(5, 3, 1)), hidden=32),
    NetworkSpec(2, 11, 14, 4, dueling=False, convs=(ConvSpec(6, 5, 3),), hidden=24),
)


def random_network(spec: NetworkSpec, seed: int, cancelling: float = 0.0) -> QNetwork:
    """With `cancelling`, hidden units come in equal pairs whose weights of that size cancel but for a little."""
    torch.manual_seed(seed)
    network = QNetwork(spec).requires_grad_(False)
    if cancelling:
        hidden, last = network.advantage[0], network.advantage[2]
        half = hidden.out_features // 2
        hidden.weight[half:], hidden.bias[half:] = hidden.weight[:half], hidden.bias[:half]
        last.weight[:, :half] += cancelling
        last.weight[:, half:] -= cancelling
    return network


def random_states(spec: NetworkSpec, seed: int, count: int) -> torch.Tensor:
    """As a game gives them: multiples of 1/255 in float32, many black and white."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(-80, 336, (count, spec.in_channels, spec.height, spec.width), generator=generator)
    return levels.clamp(0, 255).float() * (1 / 255)


def in_another_order(network: QNetwork, seed: int) -> QNetwork:
    """The same function with its channels and hidden units permuted, so that every sum is added up in another order."""
    generator, other = torch.Generator().manual_seed(seed), copy.deepcopy(network)
    order = torch.arange(network.spec.in_channels)
    for conv in other.features:
        if isinstance(conv, torch.nn.Conv2d):
            new = torch.randperm(conv.out_channels, generator=generator)
            conv.weight.copy_(conv.weight[new][:, order].clone())
            conv.bias.copy_(conv.bias[new].clone())
            order = new
    height, width = network.spec.feature_sides
    columns = torch.arange(len(order) * height * width).view(len(order), height, width)[order].flatten()
    for head in (other.advantage, other.value):
        if head is not None:
            new = torch.randperm(network.spec.hidden, generator=generator)
            head[0].weight.copy_(head[0].weight[new][:, columns].clone())
            head[0].bias.copy_(head[0].bias[new].clone())
            head[2].weight.copy_(head[2].weight[:, new].clone())
    return other


def ways_to_evaluate(network: QNetwork):
    """The float32 network in several orders of summation: [N, C, H, W] → [N, A]."""
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    yield network
    yield frozen(network)
    yield contiguous
    yield lambda points: torch.cat([network(point[None]) for point in points])
    for seed in range(3):
        yield in_another_order(network, seed)


def lead_of(network: QNetwork, action: int, change: float) -> None:
    """Give `action` a larger Q-value by `change` over every other."""
    network.advantage[2].bias[action] += change


def barely_certified(network: QNetwork, states: torch.Tensor, action: int, attack_epsilon: float) -> QNetwork:
    """The network with the bias of `action` only just large enough that it is certified in the one state."""
    chosen, changed = torch.tensor([action]), copy.deepcopy(network)
    bias = changed.advantage[2].bias

    def bound() -> float:
        return float(margins_of(IntervalCertifier(changed).difference_bounds(states, attack_epsilon), chosen))

    for _ in range(4):
        bias[action] += bound()
    step = torch.finfo(torch.float32).eps * (bias[action].abs() + 1e-3)
    while bound() >= 0:
        bias[action] += step
        step *= 2
    assert -1e-5 * (1 + bias[action].abs()) < bound() < 0
    assert IntervalCertifier(changed)(states, chosen, attack_epsilon).all()
    return changed


@settings(max_examples=16)
@given(
    spec=st.sampled_from(SPECS),
    seed=st.integers(0, 10**6),
    attack_epsilon=st.sampled_from([0.0, 1e-6, 1 / 255, 0.05]),
    cancelling=st.sampled_from([0.0, 30.0, 1e4, 1e7]),
)
def test_what_is_only_just_certified_is_greedy_however_float32_is_summed(spec, seed, attack_epsilon, cancelling):
    network, states = random_network(spec, seed, cancelling), random_states(spec, seed, count=1)
    action = seed % spec.actions
    certified = barely_certified(network, states, action, attack_epsilon)
    points = torch.cat([states, *points_of_the_ball(states, attack_epsilon, seed, count=16)])
    for evaluate_in_float32 in ways_to_evaluate(certified):
        q_values = evaluate_in_float32(points)
        others = torch.cat([q_values[:, :action], q_values[:, action + 1 :]], dim=1)
        assert (q_values[:, action] > others.amax(dim=1)).all()


def test_rounding_alone_can_change_the_action_and_is_not_certified():
    """Where real numbers have a clear winner, even over the whole ball, but float32 has not."""
    flips = 0
    for seed in range(40):
        network, states = random_network(SPECS[0], seed, cancelling=1e7), random_states(SPECS[0], seed, count=1)
        exact = copy.deepcopy(network).double()
        actions = exact(states.double()).argmax(dim=1)
        assert (margin_bounds(exact, states.double(), actions, 0.0) < 0).all()
        found = {int(evaluate_in_float32(states).argmax()) for evaluate_in_float32 in ways_to_evaluate(network)}
        if found != {int(actions)}:
            flips += 1
            assert not IntervalCertifier(network)(states, actions, 0.0).any()
    assert flips >= 5, "this network rounds too well to show anything"


@pytest.mark.parametrize(("value", "proven"), [(2.0**8, True), (2.0**26, False)])
def test_a_value_that_swallows_the_advantages_is_seen(value, proven):
    network, states = random_network(SPECS[0], seed=1), random_states(SPECS[0], seed=1, count=4)
    network.value[2].bias.fill_(value)
    lead_of(network, 2, 1.0)
    actions = torch.full((4,), 2)
    assert (margin_bounds(copy.deepcopy(network).double(), states.double(), actions, 0.0) < -0.1).all()
    q_values = network(states)
    assert (q_values[:, 2] > q_values[:, :2].amax(dim=1)).all() == proven
    assert IntervalCertifier(network)(states, actions, 0.0).all() == proven
    assert IntervalCertifier(network)(states, actions, 0.0).any() == proven


@settings(max_examples=25)
@given(spec=st.sampled_from(SPECS), seed=st.integers(0, 10**6), cancelling=st.sampled_from([0.0, 1e4]))
def test_rounded_boxes_hold_what_float32_computes(spec, seed, cancelling):
    network, states = random_network(spec, seed, cancelling), random_states(spec, seed, count=5)
    exact = copy.deepcopy(network).double()
    ball = state_box(states.double(), 0.0)
    box = propagate((*exact.features, *exact.advantage), ball, rounded=True)
    plain = propagate((*exact.features, *exact.advantage), ball)
    assert (plain.radius < 1e-9 * (1 + cancelling)).all()
    for other in (network, *(in_another_order(network, order) for order in range(3))):
        computed = other.advantage(other.features(states)).double()
        assert (computed >= box.lower).all()
        assert (computed <= box.upper).all()
    # No wider than all layers' shares of all magnitudes: 2,000 units of roundoff at most here.
    sums = plain_sums(exact, states.double())
    assert (box.radius <= 2_000 * 2.0**-24 * sums).all()


def plain_sums(network: QNetwork, states: torch.Tensor) -> torch.Tensor:
    """The outputs of the network with every weight and bias replaced by its magnitude, [N, A]."""
    positive = copy.deepcopy(network)
    for parameter in positive.parameters():
        parameter.abs_()
    return positive.advantage(positive.features(states))


@given(seed=st.integers(0, 10**6), terms=st.integers(1, 400))
def test_float32_sums_stay_within_the_error_whatever_their_order(seed, terms):
    rng = np.random.default_rng(seed)
    weights = (rng.normal(size=terms) * 10.0 ** rng.integers(-3, 4, size=terms)).astype(np.float32)
    inputs, bias = rng.random(terms).astype(np.float32), np.float32(rng.normal())
    products = weights * inputs  # rounded to float32
    exact = math.fsum([*(float(w) * float(x) for w, x in zip(weights, inputs, strict=True)), float(bias)])
    allowed = float32_error(terms) * (math.fsum(abs(float(p)) for p in products) + abs(float(bias)))
    summands = np.append(products, bias)
    for order in (
        np.arange(terms + 1),
        np.argsort(summands),
        np.argsort(-np.abs(summands)),
        rng.permutation(terms + 1),
    ):
        total = np.float32(0)
        for summand in summands[order]:
            total = np.float32(total + summand)
        assert abs(float(total) - exact) <= allowed


def random_case(seed: int, count: int = 12) -> tuple[QNetwork, torch.Tensor, torch.Tensor]:
    network, states = random_network(SPECS[seed % 2], seed), random_states(SPECS[seed % 2], seed, count)
    return network, states, network(states).argmax(dim=1)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), attack_epsilon=st.sampled_from([1e-4, 1e-3, 1 / 255, 0.02]))
def test_the_quick_look_takes_nothing_away(seed, attack_epsilon):
    network, states, actions = random_case(seed)
    certifier = IntervalCertifier(network)
    bounds = certifier.difference_bounds(states, attack_epsilon)
    assert bounds.dtype == torch.float64
    assert (bounds > q_difference_bounds(copy.deepcopy(network).double(), states.double(), attack_epsilon)).all()
    certified = certifier(states, actions, attack_epsilon)
    assert torch.equal(certified, margins_of(bounds, actions) < 0)
    possible = certifier.possible_actions(states, attack_epsilon)
    for n, a in itertools.product(range(len(states)), range(network.spec.actions)):
        beaten = any(bounds[n, a, b] < 0 for b in range(network.spec.actions) if b != a)
        assert possible[n, a] == (not beaten)
    assert torch.equal(certified, possible.sum(dim=1) == 1)
    assert possible.gather(1, actions[:, None]).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), attack_epsilon=st.sampled_from([1e-3, 1 / 255, 0.02]))
def test_every_action_that_an_attack_reaches_was_possible(seed, attack_epsilon):
    network, states, actions = random_case(seed)
    possible = IntervalCertifier(network).possible_actions(states, attack_epsilon)
    for start in points_of_the_ball(states, attack_epsilon, seed, count=8):
        end = projected_gradient_ascent(
            lambda points: other_action_margin(frozen(network)(points), actions),
            states,
            attack_epsilon=attack_epsilon,
            steps=10,
            step_size=attack_epsilon / 3,
            start=start,
        )
        for points in (start, end):
            assert possible.gather(1, network(points).argmax(dim=1, keepdim=True)).all()


def test_certified_shares_fall_with_the_radius():
    network, states, actions = random_case(0, count=60)
    certifier = IntervalCertifier(network)
    shares = [certifier(states, actions, radius).double().mean().item() for radius in (0, 1e-3, 3e-3, 0.01, 0.03, 1)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.9
    assert len(set(shares) - {0.0, 1.0}) >= 1
    assert shares[-1] == 0


def test_the_certifier_keeps_the_network_it_was_given():
    network, states, _ = random_case(0)
    certifier = IntervalCertifier(network)
    before = certifier.difference_bounds(states, 1e-3)
    lead_of(network, 0, 100.0)
    assert torch.equal(certifier.difference_bounds(states, 1e-3), before)
    assert not torch.equal(IntervalCertifier(network).difference_bounds(states, 1e-3), before)


def test_nothing_is_proven_of_states_that_are_no_numbers():
    network, states, actions = random_case(0)
    certifier = IntervalCertifier(network)
    assert not certifier(states * torch.nan, actions, 1e-3).any()
    assert certifier.possible_actions(states * torch.nan, 1e-3).all()


def test_rounded_boxes_hold_the_others():
    """Rounding widens at every layer, outward."""
    exact = random_network(SPECS[0], 4).double()
    states = random_states(SPECS[0], 4, count=6).double()
    ball = state_box(states, 0.01)
    for layers in (exact.features, (*exact.features, *exact.advantage)):
        inner, outer = propagate(layers, ball), propagate(layers, ball, rounded=True)
        assert (outer.upper >= inner.upper).all()
        assert (outer.lower <= inner.lower).all()


# A toy policy's weights are those of an untrained network, whose bounds grow a hundredfold at every layer.
RADIUS = 0.003 / 255


@pytest.fixture(scope="module")
def policy() -> Policy:
    return toy_policy(FREEWAY)


def test_the_worst_case_is_played_as_by_hand(policy):
    """One environment; the lowest-Q action out of those that no other action is proven to beat."""
    certifier = IntervalCertifier(policy.network)
    run = EvaluationSettings(
        episodes=2, run_seed=1, certify_epsilons=(RADIUS,), attack_runs=(AttackRun(WORST_CASE, RADIUS, 2),)
    )
    records = evaluate(policy, run, num_envs=2, certify=certifier)
    others, certified = [], []

    def worst(states, numbers, steps):
        (state,) = torch.from_numpy(states).float() / 255
        (q_values,) = policy(torch.from_numpy(states)).tolist()
        bounds = certifier.difference_bounds(state[None], RADIUS)[0]
        actions = range(len(q_values))
        left = [a for a in actions if all(bounds[a, b] >= 0 for b in actions if b != a)]
        chosen = min(left, key=lambda action: q_values[action])
        others.append(chosen != q_values.index(max(q_values)))
        return np.array([chosen])

    def greedy(states, numbers, steps):
        seen = torch.from_numpy(states)
        actions = policy(seen).argmax(dim=1)
        certified.extend(certifier(seen.float() / 255, actions, RADIUS).tolist())
        return actions.numpy()

    by_hand = play(worst, policy.env, episode_seeds(1, 2), num_envs=1)
    ours = select(records, attack=WORST_CASE, attack_epsilon=RADIUS)
    assert [r.value for r in select(ours, metric="return")] == [episode.total_reward for episode in by_hand]
    (flips,) = select(ours, metric="flip_rate")
    assert flips.value == pytest.approx(np.mean(others))
    assert 0 < flips.value < 1, "the bound should decide something in some states and nothing in others"
    play(greedy, policy.env, episode_seeds(1, 2), num_envs=1)
    (rate,) = select(records, metric="certified_rate", attack_epsilon=RADIUS)
    assert rate.value == pytest.approx(np.mean(certified))
    assert 0 < rate.value < 1


def test_a_policy_certified_everywhere_plays_its_worst_case_as_clean():
    policy = toy_policy(FREEWAY)
    lead_of(policy.network, 1, 50.0)
    run = EvaluationSettings(
        episodes=1, run_seed=1, certify_epsilons=(RADIUS,), attack_runs=(AttackRun(WORST_CASE, RADIUS, 1),)
    )
    records = evaluate(policy, run, num_envs=1, certify=IntervalCertifier(policy.network))
    (rate,) = select(records, metric="certified_rate")
    (flips,) = select(records, metric="flip_rate")
    assert (rate.value, flips.value) == (1.0, 0.0)
    clean, worst = (select(records, metric="action_share", attack=attack) for attack in ("clean", WORST_CASE))
    assert [record.value for record in clean] == [record.value for record in worst]


def test_proofs_save_attacks_and_change_no_record():
    """A policy of which some states are certified and others flip: the same records, and fewer states attacked."""
    policy = toy_policy(FREEWAY)
    lead_of(policy.network, 1, 1.0)
    run = EvaluationSettings(episodes=2, run_seed=1, attack_runs=(AttackRun("pgd-3", RADIUS, 2),))
    plain = evaluate(policy, run, num_envs=2)
    assert evaluate(policy, run, num_envs=2, certify=IntervalCertifier(policy.network)) == plain
    (flips,) = select(plain, metric="flip_rate")
    assert flips.value > 0

    attacked, seen = [], []

    def watched(q_values, states, *, attack_epsilon, noise):
        attacked.append(len(states))
        return attack_named("pgd-3")(q_values, states, attack_epsilon=attack_epsilon, noise=noise)

    def certify(states, actions, attack_epsilon):
        proven = IntervalCertifier(policy.network)(states, actions, attack_epsilon)
        seen.extend(proven.tolist())
        return proven

    play(AttackedPlayer(policy, watched, RADIUS, 1, certify=certify), FREEWAY, episode_seeds(1, 2), num_envs=2)
    assert 0 < sum(attacked) == seen.count(False) < len(seen)


def test_a_proof_is_asked_for_once():
    asked = []

    def certify(states, actions, attack_epsilon):
        asked.append((states[:, 0, 0, 0].tolist(), actions.tolist(), attack_epsilon))
        return (states[:, 0, 0, 0] > 0.5) & (actions == 1) & (attack_epsilon < 0.1)

    remembering = RememberingCertifier(certify)
    states = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(4, 1, 1, 1).expand(4, 2, 3, 3)
    ones = torch.ones(4, dtype=torch.int64)
    assert remembering(states[:3], ones[:3], 0.01).tolist() == [False, False, True]
    assert remembering(states, ones, 0.01).tolist() == [False, False, True, True]
    assert remembering(states.flip(0), ones, 0.01).tolist() == [True, True, False, False]
    assert asked == [([0.0, 0.25, 0.75], [1, 1, 1], 0.01), ([1.0], [1], 0.01)]
    assert remembering(states, torch.zeros_like(ones), 0.01).tolist() == [False] * 4
    assert remembering(states, ones, 0.1).tolist() == [False] * 4
    assert len(asked) == 4


def test_a_worst_case_needs_something_that_certifies(policy):
    run = EvaluationSettings(episodes=1, run_seed=1, attack_runs=(AttackRun(WORST_CASE, RADIUS, 1),))
    with pytest.raises(NrmapError, match="worst_case_bound is to be played, but nothing certifies"):
        evaluate(policy, run, num_envs=1)
    with pytest.raises(NrmapError, match="unknown attack 'worst_case'"):
        AttackRun("worst_case", RADIUS, 1)


def game_states(policy: Policy, count: int) -> torch.Tensor:
    """States of the policy's game under random actions, five steps apart, as the network takes them."""
    env, rng, start = SeededVectorEnv(policy.env, 1), np.random.default_rng(0), np.ones(1, dtype=bool)
    frames, _ = env.begin(start, [7])
    kept = []
    for step in range(5 * count):
        if step % 5 == 0:
            kept.append(frames)
        transition = env.step(rng.integers(env.num_actions, size=1))
        frames = env.begin(start, [step])[0] if transition.ended[0] else transition.states
    return torch.from_numpy(np.concatenate(kept)).float() / 255


REFERENCE_POLICIES = sorted(Path(__file__).parents[1].glob("outputs/reference/**/*.safetensors"))


def attacked_policies() -> list[Policy]:
    untrained = toy_policy(EnvSpec("Freeway", 84, 84))
    steady = toy_policy(FREEWAY)
    for parameter in steady.network.features.parameters():
        parameter.mul_(0.1)
    return [*map(load_policy, REFERENCE_POLICIES), untrained, steady]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_float32_points_stay_below_the_bounds():
    """Untrained networks and every reference policy, on states of the game; as float32 computes, without any slack."""
    policies = attacked_policies()
    for policy in policies:
        certifier, seen = IntervalCertifier(policy.network), 0
        states = game_states(policy, count=8)
        for number, attack_epsilon in enumerate(itertools.cycle([1 / 255, 3 / 255, 0.2 / 255, 0.05])):
            bounds = certifier.difference_bounds(states, attack_epsilon)
            for points in points_of_the_ball(states, attack_epsilon, seed=number, count=400):
                q_values = policy.network(points).double()
                assert (q_values[:, :, None] - q_values[:, None, :] <= bounds).all()
                seen += len(points)
            if seen >= 1_000_000 / len(policies):
                break


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("attack", ["pgd-50", "fgsm", "noise"])
def test_no_attack_flips_what_is_certified(attack):
    proven = 0
    for policy in attacked_policies():
        certifier, states = IntervalCertifier(policy.network), game_states(policy, count=24)
        for attack_epsilon in (1 / 255, 3 / 255):
            noise = StateNoise(0, np.zeros(len(states), dtype=np.int64), np.arange(len(states)))
            result = attack_named(attack)(frozen(policy.network), states, attack_epsilon=attack_epsilon, noise=noise)
            certified = certifier(states, result.clean_actions, attack_epsilon)
            assert not (certified & result.flipped).any()
            bounds = margins_of(certifier.difference_bounds(states, attack_epsilon), result.clean_actions)
            assert (result.margins <= bounds).all()
            possible = certifier.possible_actions(states, attack_epsilon)
            assert possible.gather(1, result.actions[:, None]).all()
            proven += int(certified.sum())
    assert proven > 0
