"""Published numbers from published.csv, digit for digit, to show beside ours.

Sparsity and map entropy: Korkmaz, "Investigating Vulnerabilities of Deep Neural Policies", UAI 2021, tables 1 and 2;
the Freeway row of the first is also table 1 of "Non-Robust Feature Mapping in Deep Reinforcement Learning". Neither
states the number of states N or the temperature T. Returns: Zhang et al., NeurIPS 2020 (vanilla and SA-DQN), and the
CAR-DQN paper, ICML 2024 (RADIAL and CAR): clean and under PGD-10 at ε = 1/255, and the certified action rate.
"""

import csv
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

PUBLISHED_FILE = Path(__file__).with_name("published.csv")
# The agents of the paper that our methods reproduce. Its adversarial agent is called SA-DDQN.
PAPER_AGENTS = {"ddqn": "vanilla", "sa_ddqn": "adversarial"}


@dataclass(frozen=True)
class Published:
    """One printed number. `metric`, `map_kind` and the attack are as in `nrmap.support.records.Record`."""

    game: str
    agent: str
    metric: str
    map_kind: str | None
    attack: str | None
    attack_steps: int | None
    attack_epsilon: float | None
    printed: str
    source: str


def _read() -> list[Published]:
    with PUBLISHED_FILE.open(newline="", encoding="utf-8") as file:
        return [
            Published(
                game, agent, metric, kind or None, attack or None,
                int(steps) if steps else None, float(Fraction(radius)) if radius else None, printed, source,
            )
            for game, agent, metric, kind, attack, steps, radius, printed, source in list(csv.reader(file))[1:]
        ]  # fmt: skip


PUBLISHED_MAPS = [number for number in _read() if number.map_kind]
PUBLISHED_RETURNS = [number for number in _read() if not number.map_kind]


def paper_number(game: str, method: str, metric: str, map_kind: str | None) -> Published | None:
    """Return the paper's number for the agent that `method` reproduces.

    None if `method` reproduces no agent of the paper, and if the paper printed no such number.
    """
    wanted = (game, PAPER_AGENTS.get(method), metric, map_kind)
    return next((n for n in PUBLISHED_MAPS if (n.game, n.agent, n.metric, n.map_kind) == wanted), None)


def paper_difference(game: str, method: str, base: str, metric: str, map_kind: str | None) -> str | None:
    """Return the paper's number for `method` minus that for `base`, as exact decimal text.

    None if `paper_number` is None for one of the two.
    """
    first, second = (paper_number(game, name, metric, map_kind) for name in (method, base))
    return str(Decimal(first.printed) - Decimal(second.printed)) if first and second else None
