"""Published numbers, digit for digit, for the rows beside ours.

Sparsity and map entropy: Korkmaz, "Investigating Vulnerabilities of Deep Neural Policies", UAI
2021, tables 1 and 2; the Freeway row of the first is also table 1 of "Non-Robust Feature Mapping
in Deep Reinforcement Learning". Neither states the number of states N or the temperature T.
Returns: Zhang et al., NeurIPS 2020 (vanilla and SA-DQN), and the CAR-DQN paper, ICML 2024
(RADIAL and CAR): clean and under PGD-10 at ε = 1/255, and the certified action rate.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from typing import Any

UAI_2021 = "Korkmaz, UAI 2021 (PMLR 161:1661-1670), tables 1 and 2"
SA_DQN = "Zhang et al., NeurIPS 2020 (SA-DQN)"
CAR_DQN = "CAR-DQN, ICML 2024"

# Which of our methods is which agent of the paper. Its adversarial agent is called SA-DDQN.
PAPER_AGENTS = {"ddqn": "vanilla", "sa_ddqn": "adversarial"}
ATTACK: dict[str, Any] = {"attack": "pgd", "attack_steps": 10, "attack_epsilon": 1 / 255}


@dataclass(frozen=True)
class Published:
    """One printed number. `metric`, `map_kind` and the attack are those of `nrmap.support.records.Record`."""

    game: str
    agent: str
    metric: str
    printed: str
    source: str
    map_kind: str | None = None
    attack: str | None = None
    attack_steps: int | None = None
    attack_epsilon: float | None = None

    @property
    def value(self) -> float:
        """The number itself."""
        return float(self.printed)


# game: S(K) vanilla, adversarial; S(H) vanilla, adversarial; entropy of K and of H in the same order.
_MAPS = """
Freeway     53.7272  20.4641  83.9999    83.91587   8.8287  0.0807     8.8616  0.5677
BankHeist   38.4085  4.8812   83.99999   83.99994   0.0055  1.542e-20  8.8616  0.54405
RoadRunner  33.1493  11.3216  83.999992  83.999993  1.2346  0.6973     8.8610  8.8608
Pong        49.7993  1.9508   83.99999   83.9999    8.8615  8.5658     8.8616  8.8615
"""

# agent, source: clean / PGD-10 / certified action rate, in the order of _RETURN_GAMES.
_RETURN_GAMES = ("Freeway", "Pong", "BankHeist", "RoadRunner")
_RETURNS = {
    ("vanilla DQN", SA_DQN): "34.0/0 21/-21 1308/56 45534/0",
    ("SA-DQN (PGD)", SA_DQN): "33.9/23.7 21/21 1245/1006 34032/20402",
    ("SA-DQN (convex)", SA_DQN): "30.0/30.0 21/21 1235/1232 44638/44732",
    ("RADIAL (IBP)", CAR_DQN): "33.1/33.3/.998 21/21/.898 1342/1342/.982 46224/45990/.994",
    ("CAR (PGD)", CAR_DQN): "34.0/33.7/0 21/21/0 1307/1243/0 49700/43286/0",
    ("CAR (IBP)", CAR_DQN): "33.2/33.2/.981 21/21/.986 1350/1348/.974 49398/49456/.760",
}


def _maps() -> Iterator[Published]:
    for line in _MAPS.strip().splitlines():
        game, *numbers = line.split()
        columns = product(("sparsity", "map_entropy"), ("kmap", "hmap"), ("vanilla", "adversarial"))
        for (metric, kind, agent), printed in zip(columns, numbers, strict=True):
            yield Published(game, agent, metric, printed, UAI_2021, map_kind=kind)


def _returns() -> Iterator[Published]:
    for (agent, source), row in _RETURNS.items():
        for game, numbers in zip(_RETURN_GAMES, row.split(), strict=True):
            clean, attacked, *certified = numbers.split("/")
            yield Published(game, agent, "return_mean", clean, source, attack="clean")
            yield Published(game, agent, "return_mean", attacked, source, **ATTACK)
            for rate in certified:
                epsilon = ATTACK["attack_epsilon"]
                yield Published(game, agent, "certified_rate", rate, source, attack="clean", attack_epsilon=epsilon)


PUBLISHED_MAPS = tuple(_maps())
PUBLISHED_RETURNS = tuple(_returns())


def paper_number(game: str, method: str, metric: str, map_kind: str | None) -> Published | None:
    """The paper's number for the agent that `method` reproduces; None where it printed none."""
    wanted = (game, PAPER_AGENTS.get(method), metric, map_kind)
    return next((one for one in PUBLISHED_MAPS if (one.game, one.agent, one.metric, one.map_kind) == wanted), None)


def paper_difference(game: str, method: str, base: str, metric: str, map_kind: str | None) -> str | None:
    """The paper's number for `method` minus that for `base`, exactly; None unless it printed both."""
    first, second = (paper_number(game, one, metric, map_kind) for one in (method, base))
    return str(Decimal(first.printed) - Decimal(second.printed)) if first and second else None
