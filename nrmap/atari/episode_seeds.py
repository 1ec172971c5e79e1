"""Which episodes are played: seeds that begin them differently."""

import functools
import itertools
import logging
from collections.abc import Iterator

import numpy as np

from nrmap.atari.envs import EVALUATION_STREAM, EnvSpec, SeededVectorEnv, episode_seed
from nrmap.support.errors import check

log = logging.getLogger(__name__)

# So many seeds for each possible start are tried before all starts are taken to be known: with 30
# starts the chance that one of them never comes up is below 1%.
TRIES_PER_START = 8
SEEDS_AT_A_TIME = 16


@functools.lru_cache(maxsize=64)
def episode_seeds(spec: EnvSpec, run_seed: int, episodes: int, stream: int = EVALUATION_STREAM) -> tuple[int, ...]:
    """The seeds of `episodes` episodes of a run, each with a start of its own as far as the game has them.

    Without sticky actions all of an episode follows from its actions and from the number of
    no-ops before them, 0 to `noop_max` − 1. Among 20 seeds in a row about
    six would repeat the episode of an earlier one; such a seed is passed over. When there are no
    more starts the episodes do repeat, and a warning says so. Raises NrmapError unless
    `episodes` ≥ 1 and `run_seed` ≥ 0.
    """
    check(run_seed >= 0, f"run_seed={run_seed}: expected at least 0")
    check(episodes >= 1, f"episodes={episodes}: expected at least 1")
    in_a_row = (episode_seed(run_seed, stream, 0, number) for number in itertools.count())
    if spec.sticky_actions > 0 or episodes == 1:
        return tuple(itertools.islice(in_a_row, episodes))
    tries = max(episodes, TRIES_PER_START * spec.noop_max)
    distinct: dict[int, int] = {}
    passed_over = []
    for seed, no_ops in _starts(
        spec, list(itertools.islice(in_a_row, tries)), at_a_time=min(episodes, SEEDS_AT_A_TIME)
    ):
        if no_ops in distinct:
            passed_over.append(seed)
        else:
            distinct[no_ops] = seed
        if len(distinct) == episodes:
            return tuple(distinct.values())
    log.warning(
        "%s has %s different starts (noop_max=%s, no sticky actions): of %s episodes the others repeat them, "
        "and intervals that take all for independent are too narrow",
        spec.game, len(distinct), spec.noop_max, episodes,
    )  # fmt: skip
    return (*distinct.values(), *passed_over)[:episodes]


def _starts(spec: EnvSpec, seeds: list[int], *, at_a_time: int) -> Iterator[tuple[int, int]]:
    """Every seed with the number of frames that its no-ops take."""
    env = SeededVectorEnv(spec, at_a_time)
    for begin in range(0, len(seeds), at_a_time):
        some = seeds[begin : begin + at_a_time]
        env.begin(np.ones(at_a_time, dtype=bool), some + some[-1:] * (at_a_time - len(some)))
        yield from zip(some, env.no_op_frames[: len(some)].tolist(), strict=True)
