"""Evaluation against roll-outs written out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from summed_networks import lead_of
from toy_policies import FREEWAY, toy_policy

from nrmap.atari.episode_seeds import VALIDATION_STREAM, episode_seeds
from nrmap.play import evaluation
from nrmap.play.evaluation import WORST_CASE, AttackRun, EvaluationSettings, episode_records, evaluate
from nrmap.play.players import AttackedPlayer, CleanPlayer, EpisodeCounts, constant_player, random_player
from nrmap.play.rollout import Episode, greedy, play
from nrmap.policies.network import frozen
from nrmap.robustness.attacks import StateNoise, attack_named, attack_parts
from nrmap.robustness.certify import IntervalCertifier
from nrmap.statistics.intervals import estimate_mean
from nrmap.support.errors import NrmapError
from nrmap.support.records import Record, select

EPISODES = 2
EPSILON = 8 / 255
# A toy policy's weights are those of an untrained network, whose bounds grow a hundredfold at every layer.
RADIUS = 0.003 / 255


@pytest.fixture(scope="module")
def records(toy):
    attack_runs = (AttackRun("noise", EPSILON, 1), AttackRun("pgd-3", EPSILON, EPISODES))
    settings = EvaluationSettings(EPISODES, 2, VALIDATION_STREAM, attack_runs, certify_epsilons=(0.1, 0.2))
    return evaluate(toy, settings, num_envs=2, certify=only_up)


def only_up(states, actions, attack_epsilon):
    """A fake certifier: certifies every UP at radius 0.1, where no attack runs."""
    assert states.dtype == torch.float32
    assert 0.5 < states.max() <= 1
    return (actions == 1) & (attack_epsilon == 0.1)


def value(records, **fields):
    (record,) = select(records, **fields)
    return record.value


def seeds(episodes):
    return episode_seeds(FREEWAY, 2, episodes, VALIDATION_STREAM)


def test_clean_records_are_those_of_the_greedy_roll_out(toy, records):
    states, act = [], greedy(toy)

    def watched(seen, numbers, steps):
        states.append(torch.from_numpy(seen))
        return act(seen, numbers, steps)

    played = play(watched, FREEWAY, seeds(EPISODES), num_envs=1)
    states = torch.cat(states)
    clean = select(records, attack="clean")
    (mean,) = select(clean, metric="return_mean")
    assert str(mean.note).endswith(f"{EPISODES} of {EPISODES} episodes end at the limit of 40 agent steps")
    returns = [(record.episode, record.value) for record in select(clean, metric="return")]
    assert returns == [(number, episode.total_reward) for number, episode in enumerate(played)]
    q_values = toy(states).double()
    for action, name in enumerate(("NOOP", "UP", "DOWN")):
        (share,) = select(clean, metric="action_share", action=name)
        assert share.value == pytest.approx((q_values.argmax(dim=1) == action).double().mean().item())
        assert share.num_states == len(states) == EPISODES * FREEWAY.max_agent_steps
    best = q_values.sort(dim=1, descending=True).values
    gaps = (best[:, 0] - best[:, 1]).numpy()
    for quantile in evaluation.GAP_QUANTILES:
        found = value(clean, metric="q_gap_quantile", quantile=quantile)
        assert found == pytest.approx(np.quantile(gaps, quantile), abs=1e-4)
    share_of_up = value(clean, metric="action_share", action="UP")
    certified = [value(clean, metric="certified_rate", attack_epsilon=radius) for radius in (0.1, 0.2)]
    assert certified == [share_of_up, 0]
    assert 0 < share_of_up < 1
    of_policy = {(record.game, record.method, record.seed, record.policy_sha256) for record in records}
    assert of_policy == {("Freeway", "toy", 0, toy.sha256)}
    assert len({replace(record, value=0.0, low=None, high=None) for record in records}) == len(records)


@pytest.mark.parametrize(("name", "episodes"), [("noise", 1), ("pgd-3", EPISODES)])
def test_attacked_records_are_those_of_a_roll_out_attacked_by_hand(toy, records, name, episodes):
    """One environment, one state at a time, its noise from (run seed, episode, step)."""
    attack, q_values = attack_named(name), frozen(toy.network)
    flips = []

    def act(states, numbers, steps):
        noise = StateNoise(2, numbers, steps)
        attacked = attack(q_values, torch.from_numpy(states).float() / 255, attack_epsilon=EPSILON, noise=noise)
        flips.append(toy(torch.from_numpy(states)).argmax(dim=1) != toy.network(attacked.perturbed).argmax(dim=1))
        return attacked.actions.numpy()

    played = play(act, FREEWAY, seeds(episodes), num_envs=1)
    kind, steps = attack_parts(name)
    ours = select(records, attack=kind, attack_steps=steps, attack_epsilon=EPSILON)
    assert [record.value for record in select(ours, metric="return")] == [episode.total_reward for episode in played]
    share = torch.cat(flips).double().mean().item()
    assert value(ours, metric="flip_rate") == pytest.approx(share)
    assert {record.episodes for record in ours} == {episodes}
    taken = np.concatenate([episode.actions for episode in played])
    assert value(ours, metric="action_share", action="UP") == pytest.approx((taken == 1).mean())
    if name == "pgd-3":
        assert share > value(records, metric="flip_rate", attack="noise")


def test_baselines_are_constants_and_uniform_choices():
    spec = replace(FREEWAY, max_agent_steps=120)  # long enough to get to the other side
    records = evaluation.evaluate_baselines(spec, episodes=2, run_seed=1, num_envs=2)
    names = ("NOOP", "UP", "DOWN")
    constants = {("constant_action", name) for name in names}
    assert {(record.method, record.variant) for record in records} == {("random_policy", None), *constants}
    by_hand = play(constant_player(1), spec, episode_seeds(spec, 1, 2), num_envs=1)
    crossed = [episode.total_reward for episode in by_hand]
    for name in names:
        ours = select(records, variant=name)
        # Who never goes up crosses no road.
        assert [record.value for record in select(ours, metric="return")] == (crossed if name == "UP" else [0, 0])
        assert value(ours, metric="action_share", action=name) == 1
    assert min(crossed) > 0
    shares = [value(records, metric="action_share", method="random_policy", action=name) for name in names]
    # 240 draws: a share is 1/3 ± 0.030.
    assert all(abs(share - 1 / 3) < 0.12 for share in shares)
    assert {(record.seed, record.policy_sha256, record.attack) for record in records} == {(None, None, "clean")}


def test_random_actions_follow_from_seed_episode_and_step():
    def actions(seed, episodes, steps):
        player = random_player(6, seed, 500)
        return player(np.zeros((len(steps), 1, 1, 1), dtype=np.uint8), np.array(episodes), np.array(steps)).tolist()

    whole, other_seed, other_episode = (actions(s, [e] * 500, range(500)) for s, e in ((0, 3), (1, 3), (0, 4)))
    assert set(whole) == set(range(6))
    assert actions(0, [1, 3, 3], [7, 499, 7]) == [actions(0, [1], [7])[0], whole[499], whole[7]]
    assert whole not in (other_seed, other_episode)


def test_episode_records_by_hand():
    def episode(actions, rewards):
        return Episode(0, np.array(actions, dtype=np.uint8), np.array(rewards, dtype=np.float32), True, False)

    def make(**fields):
        return Record(game="Freeway", method="toy", seed=0, **fields)

    episodes = [episode([0, 1, 1], [1, 0, 2.5]), episode([1], [-0.5])]
    records = episode_records(make, episodes, ("NOOP", "UP", "DOWN"))
    assert [record.value for record in select(records, metric="return")] == [3.5, -0.5]
    assert value(records, metric="return_mean") == 1.5
    assert value(records, metric="return_std") == pytest.approx(8**0.5)
    shares = {record.action: record.value for record in select(records, metric="action_share")}
    assert shares == {"NOOP": 0.25, "UP": 0.75, "DOWN": 0.0}
    assert evaluation.rate_record(make, "flip_rate", EpisodeCounts({0: 2, 1: 1}), episodes).value == 0.75
    many = [episode([0], [reward]) for reward in range(10)]
    (mean,) = select(episode_records(make, many, ("NOOP",)), metric="return_mean")
    expected = estimate_mean(list(range(10)))
    assert (mean.low, mean.high, mean.interval) == (expected.low, expected.high, expected.interval)
    assert value(episode_records(make, many[:1], ("NOOP",)), metric="return_std") is None


def test_the_worst_case_is_played_as_by_hand(toy):
    """Against a roll-out written by hand with one environment."""
    certifier = IntervalCertifier(toy.network)
    run = EvaluationSettings(1, 1, attack_runs=(AttackRun(WORST_CASE, RADIUS, 2),), certify_epsilons=(RADIUS,))
    records = evaluate(toy, run, num_envs=2, certify=certifier)
    others, certified = [], []

    def worst(states, numbers, steps):
        (state,) = torch.from_numpy(states).float() / 255
        (q_values,) = toy(torch.from_numpy(states)).tolist()
        bounds = certifier.difference_bounds(state[None], RADIUS)[0]
        actions = range(len(q_values))
        left = [a for a in actions if all(bounds[a, b] >= 0 for b in actions if b != a)]
        chosen = min(left, key=lambda action: q_values[action])
        others.append(chosen != q_values.index(max(q_values)))
        return np.array([chosen])

    def clean(states, numbers, steps):
        seen = torch.from_numpy(states)
        actions = toy(seen).argmax(dim=1)
        certified.extend(certifier(seen.float() / 255, actions, RADIUS).tolist())
        return actions.numpy()

    by_hand = play(worst, toy.env, episode_seeds(toy.env, 1, 2), num_envs=1)
    ours = select(records, attack=WORST_CASE, attack_epsilon=RADIUS)
    assert [r.value for r in select(ours, metric="return")] == [episode.total_reward for episode in by_hand]
    play(clean, toy.env, episode_seeds(toy.env, 1, 1), num_envs=1)
    rates = value(ours, metric="flip_rate"), value(records, metric="certified_rate", attack_epsilon=RADIUS)
    assert rates == pytest.approx((np.mean(others), np.mean(certified)))
    assert 0 < min(rates) <= max(rates) < 1, "the bound should decide something in some states and nothing in others"


def test_proofs_save_attacks_and_change_no_record():
    """Some states are certified and others flip: equal records with fewer attacked states."""
    policy = toy_policy(FREEWAY)
    lead_of(policy.network, 1, 1.0)
    run = EvaluationSettings(episodes=1, run_seed=1, attack_runs=(AttackRun("pgd-3", RADIUS, 2),))
    plain = evaluate(policy, run, num_envs=2)
    assert evaluate(policy, run, num_envs=2, certify=IntervalCertifier(policy.network)) == plain
    assert value(plain, metric="flip_rate") > 0

    attacked, seen = [], []

    def watched(q_values, states, *, attack_epsilon, noise):
        attacked.append(len(states))
        return attack_named("pgd-3")(q_values, states, attack_epsilon=attack_epsilon, noise=noise)

    def certify(states, actions, attack_epsilon):
        proven = IntervalCertifier(policy.network)(states, actions, attack_epsilon)
        seen.extend(proven.tolist())
        return proven

    play(AttackedPlayer(policy, watched, RADIUS, 1, certify=certify), FREEWAY, episode_seeds(FREEWAY, 1, 2), num_envs=2)
    assert 0 < sum(attacked) == seen.count(False) < len(seen)


def test_a_worst_case_needs_something_that_certifies(toy):
    run = EvaluationSettings(episodes=1, run_seed=1, attack_runs=(AttackRun(WORST_CASE, RADIUS, 1),))
    with pytest.raises(NrmapError, match="greedy_worst_case is to be played, but nothing certifies"):
        evaluate(toy, run, num_envs=1)
    with pytest.raises(NrmapError, match="certify_epsilons are set, but nothing certifies"):
        evaluate(toy, EvaluationSettings(1, 1, certify_epsilons=(RADIUS,)), num_envs=1)


@pytest.mark.cuda
def test_a_policy_on_a_cuda_device_is_evaluated_there():
    policy, where = toy_policy(FREEWAY), np.zeros(2, dtype=np.int64)
    states = np.zeros((2, *FREEWAY.state_shape), dtype=np.uint8)
    here = CleanPlayer(policy)(states, where, where)
    policy.to("cuda")
    assert CleanPlayer(policy)(states, where, where).tolist() == here.tolist()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_batch_filled_up_for_a_graph_is_attacked_as_it_is(device):
    policy = toy_policy(FREEWAY).to(device)
    states = np.random.default_rng(0).integers(256, size=(5, *FREEWAY.state_shape), dtype=np.uint8)
    plain, graphed = (AttackedPlayer(policy, attack_named("pgd-2"), 1 / 255, 0) for _ in range(2))
    plain._graphs, graphed._graphs = False, True  # on a CPU a graph's function is called as it is
    for rows in map(np.array, ([0, 1, 2, 3, 4], [3, 1], [2], [4, 0, 3], [1, 4], [0])):
        one, two = (player(states[rows], rows, rows) for player in (plain, graphed))
        assert one.tolist() == two.tolist()
    assert plain.flips == graphed.flips
    assert 0 < len(plain.flips) < 5
