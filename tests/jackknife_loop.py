"""The jackknife within policies, episode by episode: the reference for every interval of a sum of maps."""

from collections.abc import Callable, Sequence
from typing import Any

from scipy import stats


def jackknife_loop(statistic: Callable[[list[int]], float], players: Sequence[int]) -> tuple[float, Any, Any]:
    """Value and 95% interval of `statistic`, a function of the numbers of episodes, which `players` played."""
    everything = list(range(len(players)))
    without = [statistic([other for other in everything if other != episode]) for episode in everything]
    variance = 0.0
    for player in set(players):
        own = [value for value, by in zip(without, players, strict=True) if by == player]
        variance += (len(own) - 1) / len(own) * sum((value - sum(own) / len(own)) ** 2 for value in own)
    half = stats.t.ppf(0.975, len(players) - len(set(players))) * variance**0.5
    value = statistic(everything)
    return value, value - half, value + half
