"""What a policy scores over whole episodes: clean, under attack, and beside players that do not look."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from nrmap.atari.envs import EVALUATION_STREAM, EnvSpec, SeededVectorEnv
from nrmap.atari.episode_seeds import episode_seeds
from nrmap.play.players import (
    AttackedPlayer,
    Certifier,
    CleanPlayer,
    ConstantPlayer,
    EpisodeCounts,
    RandomPlayer,
    WorstCasePlayer,
)
from nrmap.play.rollout import ActionFn, Episode, ProgressFn, env_of, play
from nrmap.policies.agent import Agent
from nrmap.robustness.attacks import UniformNoise, attack_named, check_attack_epsilon
from nrmap.robustness.certify import RememberingCertifier
from nrmap.statistics.intervals import mean_interval, rate_interval
from nrmap.support.errors import check
from nrmap.support.records import GAP_QUANTILES, Record, RecordFactory

# Which roll-out is playing ("clean", "pgd-10 at 0.0039", …), agent steps played, steps in all (an estimate).
EvaluationProgress = Callable[[str, int, int], None]
PlaysRollOut = Callable[[], list[Record]]
# A roll-out's name, unique in its evaluation, and what plays it; gives its records, from now or from before.
RolloutCache = Callable[[str, PlaysRollOut], list[Record]]

BASELINE_METHOD = "baseline"
# Named like an attack, but none: the lowest-Q action that is not proven impossible, at every step.
WORST_CASE = "greedy_worst_case"


@dataclass(frozen=True)
class AttackRun:
    """One roll-out under attack: the attack by its name, its radius, and over how many episodes.

    "greedy_worst_case" stands for whatever an attack might do in each state: see `WorstCasePlayer`.
    """

    attack: str
    attack_epsilon: float
    episodes: int

    def __post_init__(self) -> None:
        if self.attack != WORST_CASE:
            attack_named(self.attack)
        check_attack_epsilon(self.attack_epsilon)
        check(self.episodes >= 1, f"episodes={self.episodes} under {self.attack}: expected at least 1")

    @property
    def name(self) -> str:
        """The attack as it stands in records."""
        return WORST_CASE if self.attack == WORST_CASE else attack_named(self.attack).name


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured; every field changes the result.

    Episode e has the same seed in every roll-out, see `episode_seeds`: they differ only in who plays.
    """

    episodes: int
    run_seed: int
    stream: int = EVALUATION_STREAM
    attack_runs: tuple[AttackRun, ...] = ()
    certify_epsilons: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check(self.episodes >= 1, f"episodes={self.episodes}: expected at least 1")
        for attack_epsilon in self.certify_epsilons:
            check_attack_epsilon(attack_epsilon)


def _keep_nothing(roll_out: str, play_it: PlaysRollOut) -> list[Record]:
    return play_it()


def evaluate(
    policy: Agent,
    settings: EvaluationSettings,
    *,
    num_envs: int,
    device: str | torch.device = "cpu",
    certify: Certifier | None = None,
    keep: RolloutCache = _keep_nothing,
    progress: EvaluationProgress | None = None,
) -> list[Record]:
    """Roll the policy out clean and under each attack of `settings`; `device` is where it lies.

    The clean roll-out also gives quantiles of the Q-gap, the lead of the greedy action over the
    next best ("q_gap_quantile"), and with `certify` the share of its states that are certified
    at each radius ("certified_rate"). Those under attack give the share of states whose action
    flips ("flip_rate"); with `certify` only those states are attacked that it leaves open, which
    saves time and changes no result. For the rest see `episode_records`. Every roll-out goes
    through `keep`, which may know from an evaluation that was cut off what it gave. Raises
    NrmapError when the policy does not fit its environment, or there are radii to certify or
    worst cases but no `certify`.
    """
    env = env_of(policy)
    check(certify is not None or not settings.certify_epsilons, "certify_epsilons are set, but nothing certifies")
    bounds_worst_case = any(run.attack == WORST_CASE for run in settings.attack_runs)
    check(certify is not None or not bounds_worst_case, f"{WORST_CASE} is to be played, but nothing certifies")
    if certify is not None:
        certify = RememberingCertifier(certify)
    names = SeededVectorEnv(env, 1).action_names
    record = partial(Record, env.game, policy.method, policy.seed, policy_sha256=policy.sha256)

    def play_clean() -> list[Record]:
        player = CleanPlayer(policy, device, certify, settings.certify_epsilons)
        seeds = episode_seeds(env, settings.run_seed, settings.episodes, settings.stream)
        played = play(player, env, seeds, num_envs=num_envs, progress=_named(progress, "clean"))
        make = partial(record, episodes=len(played), attack="clean")
        records = episode_records(make, played, names)
        gaps = player.q_gaps
        for quantile in GAP_QUANTILES:
            value = float(np.quantile(gaps, quantile))
            records.append(make(metric="q_gap_quantile", value=value, item=str(quantile), num_states=len(gaps)))
        for attack_epsilon, certified in player.certified.items():
            rate = rate_record(partial(make, attack_epsilon=attack_epsilon), "certified_rate", certified, played)
            records.append(rate)
        return records

    def play_under(run: AttackRun) -> list[Record]:
        player = _player_under(run, policy, settings.run_seed, device, certify)
        seeds = episode_seeds(env, settings.run_seed, run.episodes, settings.stream)
        report = _named(progress, f"{run.name} at {run.attack_epsilon:.2g}")
        played = play(player, env, seeds, num_envs=num_envs, progress=report)
        make = partial(record, episodes=len(played), attack=run.name, attack_epsilon=run.attack_epsilon)
        return [*episode_records(make, played, names), rate_record(make, "flip_rate", player.flips, played)]

    records = keep("0-clean", play_clean)
    for number, run in enumerate(settings.attack_runs, start=1):
        records += keep(f"{number}-{run.name}", partial(play_under, run))
    return records


def _player_under(
    run: AttackRun, policy: Agent, seed: int, device: str | torch.device, certify: Certifier | None
) -> AttackedPlayer | WorstCasePlayer:
    if run.attack == WORST_CASE:
        assert certify is not None, "checked before anything was played"
        return WorstCasePlayer(policy, certify, run.attack_epsilon, device)
    attack = attack_named(run.attack)
    proofs = None if isinstance(attack, UniformNoise) else certify  # a proof costs more than the one point it may save
    return AttackedPlayer(policy, attack, run.attack_epsilon, seed, device, proofs)


def evaluate_baselines(
    spec: EnvSpec,
    *,
    episodes: int,
    run_seed: int,
    num_envs: int,
    stream: int = EVALUATION_STREAM,
    progress: EvaluationProgress | None = None,
) -> list[Record]:
    """Every constant action ("constant:UP") and a uniformly random policy ("random_policy"), by `evaluate`'s protocol.

    They belong to the game, not to a policy: their records have the method "baseline" and no seed.
    """
    seeds = episode_seeds(spec, run_seed, episodes, stream)
    names = SeededVectorEnv(spec, 1).action_names
    players: dict[str, ActionFn] = {"random_policy": RandomPlayer(len(names), run_seed, spec.max_agent_steps)}
    players |= {f"constant:{name}": ConstantPlayer(action) for action, name in enumerate(names)}
    records = []
    for attack, player in players.items():
        played = play(player, spec, seeds, num_envs=num_envs, progress=_named(progress, attack))
        make = partial(Record, spec.game, BASELINE_METHOD, None, episodes=episodes, attack=attack)
        records += episode_records(make, played, names)
    return records


def _named(progress: EvaluationProgress | None, roll_out: str) -> ProgressFn | None:
    return None if progress is None else partial(progress, roll_out)


def episode_records(make: RecordFactory, episodes: Sequence[Episode], action_names: Sequence[str]) -> list[Record]:
    """What every roll-out gives, each record by `make`: returns, unclipped and undiscounted, and the actions taken.

    "return" of each episode (its number is the item), "return_mean" with its interval,
    "return_std" (of a sample, n − 1) and the "action_share" of each action by name.
    """
    returns = [episode.total_reward for episode in episodes]
    interval = mean_interval(returns)
    records = [make(metric="return", value=value, item=str(number)) for number, value in enumerate(returns)]
    records.append(
        make(
            metric="return_mean",
            value=float(np.mean(returns)),
            low=interval.low,
            high=interval.high,
            interval=interval.method,
            note=interval.reason,
        )
    )
    if len(returns) > 1:
        records.append(make(metric="return_std", value=float(np.std(returns, ddof=1))))
    else:
        records.append(make(metric="return_std", value=None, note="one episode has no standard deviation"))
    for action, name in enumerate(action_names):
        taken = EpisodeCounts({n: int((episode.actions == action).sum()) for n, episode in enumerate(episodes)})
        records.append(rate_record(partial(make, item=name), "action_share", taken, episodes))
    return records


def rate_record(make: RecordFactory, metric: str, counts: EpisodeCounts, episodes: Sequence[Episode]) -> Record:
    """The share of all states of `episodes` that `counts` counts, with its interval, as a record by `make`."""
    lengths = [episode.length for episode in episodes]
    by_episode = [counts[number] for number in range(len(episodes))]
    interval = rate_interval(by_episode, lengths)
    return make(
        metric=metric,
        value=sum(by_episode) / sum(lengths),
        low=interval.low,
        high=interval.high,
        interval=interval.method,
        note=interval.reason,
        num_states=sum(lengths),
    )
