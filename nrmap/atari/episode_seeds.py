"""Choose episode seeds so that the episodes start differently."""

import functools
import itertools
import logging
from collections.abc import Iterator

import numpy as np

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.support.errors import check

# Streams separate training, evaluation and validation episodes of the same run seed.
TRAINING_STREAM, EVALUATION_STREAM, VALIDATION_STREAM = 0, 1, 2
EPISODE_SEEDS = 2**31  # seeds that the emulator takes, from 0

log = logging.getLogger(__name__)

# Seeds to try per possible start. With 30 starts the chance of missing one is below 1%.
TRIES_PER_START = 8
SEEDS_AT_A_TIME = 16


def episode_seed(run_seed: int, stream: int, env: int, episode: int) -> int:
    """The emulator seed, in [0, 2^31), of one episode of one environment in a stream such as `TRAINING_STREAM`.

    Raises ValueError for a negative number.
    """
    words = np.random.SeedSequence([run_seed, stream, env, episode]).generate_state(1)
    return int(words[0] >> 1)


@functools.lru_cache(maxsize=64)
def episode_seeds(spec: EnvSpec, run_seed: int, episodes: int, stream: int = EVALUATION_STREAM) -> tuple[int, ...]:
    """Return the emulator seeds of a run's `episodes` episodes in `stream`, with different starts where possible.

    Without sticky actions episodes differ only in their number of no-ops, so by default there are 30 starts. Of 20
    drawn seeds about five repeat an earlier start; they are skipped. With fewer starts than episodes, skipped seeds are
    used after all and a warning is logged. Raises NrmapError unless `episodes` ≥ 1 and `run_seed` ≥ 0, and as
    `SeededVectorEnv` does.
    """
    check(run_seed >= 0, f"run_seed={run_seed}: expected at least 0")
    check(episodes >= 1, f"episodes={episodes}: expected at least 1")
    in_a_row = (episode_seed(run_seed, stream, 0, number) for number in itertools.count())
    if spec.sticky_actions > 0 or episodes == 1:
        return tuple(itertools.islice(in_a_row, episodes))
    tries = max(episodes, TRIES_PER_START * spec.noop_max)
    distinct: dict[int, int] = {}
    skipped = []
    for seed, no_ops in _starts(
        spec, list(itertools.islice(in_a_row, tries)), at_a_time=min(episodes, SEEDS_AT_A_TIME)
    ):
        if no_ops in distinct:
            skipped.append(seed)
        else:
            distinct[no_ops] = seed
        if len(distinct) == episodes:
            return tuple(distinct.values())
    log.warning(
        "%s has %s different starts (noop_max=%s, no sticky actions): the rest of %s episodes repeat them, "
        "so intervals that assume independent episodes are too narrow",
        spec.game, len(distinct), spec.noop_max, episodes,
    )  # fmt: skip
    return (*distinct.values(), *skipped)[:episodes]


def _starts(spec: EnvSpec, seeds: list[int], *, at_a_time: int) -> Iterator[tuple[int, int]]:
    """Yield each seed with the number of frames of its no-ops."""
    env = SeededVectorEnv(spec, at_a_time)
    for begin in range(0, len(seeds), at_a_time):
        some = seeds[begin : begin + at_a_time]
        env.begin(np.ones(at_a_time, dtype=bool), some + some[-1:] * (at_a_time - len(some)))
        yield from zip(some, env.no_op_frames[: len(some)].tolist(), strict=True)
