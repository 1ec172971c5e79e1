"""Returns over whole episodes: of a policy, clean and under attack, and of state-independent baselines."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import action_names
from nrmap.atari.episode_seeds import EVALUATION_STREAM, episode_seeds
from nrmap.play.players import (
    AttackedPlayer,
    CleanPlayer,
    EpisodeCounts,
    WorstCasePlayer,
    constant_player,
    random_player,
)
from nrmap.play.rollout import ActionFn, Episode, ProgressFn, env_of, no_report, play
from nrmap.policies.agent import Agent
from nrmap.robustness.attacks import MOST_STEPS, attack_named, attack_parts, uniform_noise
from nrmap.robustness.certify import IntervalCertifier
from nrmap.robustness.perturbations import epsilon_text
from nrmap.statistics.intervals import estimate_mean, estimate_rate
from nrmap.support.errors import check
from nrmap.support.records import CONSTANT_ACTION, GAP_QUANTILES, RANDOM_POLICY, Record, RecordFactory
from nrmap.support.schema import Radius, Seed, expect, schema

# Called with a roll-out's name, unique in its evaluation, and the function that plays it; returns its records.
RolloutCache = Callable[[str, Callable[[], list[Record]]], list[Record]]

# The greedy worst case (GWC), see `WorstCasePlayer`: listed like an attack.
WORST_CASE = "greedy_worst_case"
# The limit is low because `analyze` plays all episodes of a roll-out at the same time.
Episodes = Annotated[int, Field(ge=1, le=1000)]


@schema
class AttackRun:
    """One roll-out under attack: `attack` is "noise", "fgsm", "pgd-K", K from 1 to 10,000, or "greedy_worst_case".

    `attack_epsilon` is the ℓ∞ radius where white is 1, above 0 and at most 1; `episodes` are 1 to 1,000. Raises
    NrmapError for an unknown attack and for values out of range.
    """

    attack: str
    attack_epsilon: Radius
    episodes: Episodes

    def __post_init__(self) -> None:
        steps = self.record_fields["attack_steps"]
        expect(steps is None or 1 <= steps <= MOST_STEPS, self, "attack", f"pgd-1 to pgd-{MOST_STEPS}")

    @property
    def label(self) -> str:
        """The attack and its radius for progress bars, such as "pgd-10 at ε = 1/255"."""
        return f"{self.attack} at {epsilon_text(self.attack_epsilon)}"

    @property
    def record_fields(self) -> dict[str, Any]:
        """The fields of a Record that describe the attack; `attack_steps` is None unless the attack is PGD."""
        kind, steps = (WORST_CASE, None) if self.attack == WORST_CASE else attack_parts(self.attack)
        return {"attack": kind, "attack_steps": steps, "attack_epsilon": self.attack_epsilon}


@schema
class EvaluationSettings:
    """Everything that an evaluation's result depends on, besides the policy.

    `episodes` and `certify_epsilons`, ℓ∞ radii where white is 1, are for the clean roll-out. Episode e has the same
    seed in every roll-out, see `episode_seeds`, so roll-outs differ only in the player. Raises NrmapError for values
    out of range.
    """

    episodes: Episodes
    run_seed: Seed
    stream: int = EVALUATION_STREAM
    attack_runs: tuple[AttackRun, ...] = ()
    certify_epsilons: tuple[Radius, ...] = ()


def evaluate(
    policy: Agent,
    settings: EvaluationSettings,
    *,
    num_envs: int,
    certify: IntervalCertifier | None = None,
    keep: RolloutCache = lambda roll_out, play_it: play_it(),
    progress: ProgressFn = no_report,
) -> list[Record]:
    """Play `policy` clean and under each attack of `settings`, on the policy's device, and return the records.

    Each roll-out gives the records of `episode_records`. The clean one adds "q_gap_quantile": quantiles over its states
    of the Q-gap, max Q minus the second-largest Q, and "certified_rate": the fraction of its states certified at each
    of `certify_epsilons`. Attacked ones add "flip_rate": the fraction of states whose greedy action flips. On a CPU,
    FGSM and PGD skip states that `certify` proves robust, which saves time and changes no result. `keep` gets the name
    of each roll-out and the function that plays it, and may return stored records instead. `progress` also gets the
    name of the roll-out, as `part`.

    Raises NrmapError as `env_of`, `play` and the policy's `for_attacks` do. Also raises it if `certify_epsilons` or a
    greedy worst case are set without `certify`.
    """
    env = env_of(policy)
    check(certify is not None or not settings.certify_epsilons, "certify_epsilons are set, but nothing certifies")
    bounds_worst_case = any(run.attack == WORST_CASE for run in settings.attack_runs)
    check(certify is not None or not bounds_worst_case, f"{WORST_CASE} is to be played, but nothing certifies")
    names, kind = action_names(env), None if policy.outputs == "q_values" else policy.outputs
    record = partial(Record, env.game, policy.method, policy.seed, policy_sha256=policy.sha256, outputs=kind)

    def play_clean() -> list[Record]:
        player = CleanPlayer(policy, certify, settings.certify_epsilons)
        seeds = episode_seeds(env, settings.run_seed, settings.episodes, settings.stream)
        played = play(player, env, seeds, num_envs=num_envs, progress=partial(progress, part="clean"))
        make = partial(record, episodes=len(played), attack="clean")
        records = episode_records(make, played, names)
        gaps = player.q_gaps
        for quantile in GAP_QUANTILES:
            value = float(np.quantile(gaps, quantile))
            records.append(make(metric="q_gap_quantile", value=value, quantile=quantile, num_states=len(gaps)))
        for attack_epsilon, certified in player.certified.items():
            rate = rate_record(partial(make, attack_epsilon=attack_epsilon), "certified_rate", certified, played)
            records.append(rate)
        return records

    def play_under(run: AttackRun) -> list[Record]:
        player: AttackedPlayer | WorstCasePlayer
        if run.attack == WORST_CASE:
            assert certify is not None, "checked above"
            player = WorstCasePlayer(policy, certify, run.attack_epsilon)
        else:
            attack = attack_named(run.attack)
            proofs = None if attack is uniform_noise else certify  # a proof costs more than the point it may save
            player = AttackedPlayer(policy, attack, run.attack_epsilon, settings.run_seed, proofs)
        seeds = episode_seeds(env, settings.run_seed, run.episodes, settings.stream)
        played = play(player, env, seeds, num_envs=num_envs, progress=partial(progress, part=run.label))
        make = partial(record, episodes=len(played), **run.record_fields)
        return [*episode_records(make, played, names), rate_record(make, "flip_rate", player.flips, played)]

    records = keep("0-clean", play_clean)
    for number, run in enumerate(settings.attack_runs, start=1):
        records += keep(f"{number}-{run.attack}", partial(play_under, run))
    return records


def evaluate_baselines(
    spec: EnvSpec,
    *,
    episodes: int,
    run_seed: int,
    num_envs: int,
    stream: int = EVALUATION_STREAM,
    progress: ProgressFn = no_report,
) -> list[Record]:
    """Play every constant action and a uniformly random policy on the episodes of `evaluate`; return clean records.

    The records have no seed and no policy; `variant` is the name of the constant action, None for random actions.
    Raises NrmapError unless `episodes` ≥ 1, `num_envs` ≥ 1 and `run_seed` ≥ 0.
    """
    seeds = episode_seeds(spec, run_seed, episodes, stream)
    names = action_names(spec)
    players: dict[tuple[str, str | None], ActionFn] = {
        (RANDOM_POLICY, None): random_player(len(names), run_seed, spec.max_agent_steps),
        **{(CONSTANT_ACTION, name): constant_player(action) for action, name in enumerate(names)},
    }
    records = []
    for (method, variant), player in players.items():
        part = " ".join(filter(None, (method, variant)))
        played = play(player, spec, seeds, num_envs=num_envs, progress=partial(progress, part=part))
        make = partial(Record, spec.game, method, None, variant=variant, episodes=episodes, attack="clean")
        records += episode_records(make, played, names)
    return records


def episode_records(make: RecordFactory, episodes: Sequence[Episode], action_names: Sequence[str]) -> list[Record]:
    """Make the records of a roll-out's returns, undiscounted and unclipped, and of its actions.

    The metrics are "return" of each episode, "return_mean" with its interval and a note on episodes that the step
    limit ended, "return_std" (divisor n − 1; None for n = 1), and "action_share": each action's fraction of all steps.
    """
    returns = [episode.total_reward for episode in episodes]
    records = [make(metric="return", value=value, episode=number) for number, value in enumerate(returns)]
    mean = asdict(estimate_mean(returns))
    if cut := [episode.length for episode in episodes if episode.truncated]:
        at_limit = f"{len(cut)} of {len(episodes)} episodes end at the limit of {max(cut):,} agent steps"
        mean["note"] = "; ".join(filter(None, [mean["note"], at_limit]))
    records.append(make(metric="return_mean", **mean))
    if len(returns) > 1:
        records.append(make(metric="return_std", value=float(np.std(returns, ddof=1))))
    else:
        records.append(make(metric="return_std", value=None, note="one episode has no standard deviation"))
    for action, name in enumerate(action_names):
        taken = EpisodeCounts({n: int((episode.actions == action).sum()) for n, episode in enumerate(episodes)})
        records.append(rate_record(partial(make, action=name), "action_share", taken, episodes))
    return records


def rate_record(make: RecordFactory, metric: str, counts: EpisodeCounts, episodes: Sequence[Episode]) -> Record:
    """Make a record of `counts`, states by episode number, as a fraction of all states of `episodes`.

    It has an interval over episodes, see `estimate_rate`.
    """
    lengths = [episode.length for episode in episodes]
    by_episode = [counts[number] for number in range(len(episodes))]
    return make(metric=metric, num_states=sum(lengths), **asdict(estimate_rate(by_episode, lengths)))
