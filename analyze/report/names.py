"""Labels of policies, attacks, states and metrics: the only place that makes them from the fields of records."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from nrmap.maps.kinds import KINDS
from nrmap.maps.null_networks import NULL_NETWORKS
from nrmap.play.evaluation import WORST_CASE
from nrmap.robustness.perturbations import epsilon_text
from nrmap.support.records import BASELINES, CONSTANT_ACTION, Record

Item = TypeVar("Item")
Key = TypeVar("Key")


def gathered(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Group the items by key; the keys are in the order in which they appear."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def grouped(items: Iterable[Item], key: Callable[[Item], Any]) -> dict[Any, list[Item]]:
    """Group the items by key, with the keys sorted."""
    groups = gathered(items, key)
    return {found: groups[found] for found in sorted(groups)}


class _Style(NamedTuple):
    title: str
    short: str
    colour: str
    marker: str  # for print without colours


# In the order of tables and figures; other methods follow by name. The colours are those of Okabe and
# Ito, which colour-blind readers can tell apart, without the yellow that white paper swallows.
_METHODS = {
    "ddqn": _Style("DDQN (vanilla)", "DDQN", "#0072B2", "o"),
    "ddqn_continued": _Style("DDQN continued (κ = 0)", "DDQN κ=0", "#009E73", "^"),
    "sa_ddqn": _Style("SA-DDQN (adversarial)", "SA-DDQN", "#D55E00", "s"),
    "sa_ddqn_ibp": _Style("SA-DDQN (interval bounds)", "SA-DDQN IBP", "#CC79A7", "D"),
}
_MORE_STYLES = (("#56B4E9", "v"), ("#E69F00", "P"), ("#000000", "X"), ("#7F7F7F", "*"))


class _Ranked(ABC):
    """Base of names that are sorted by `rank`."""

    @property
    @abstractmethod
    def rank(self) -> tuple[Any, ...]: ...

    def __lt__(self, other: "_Ranked") -> bool:
        return self.rank < other.rank


@dataclass(frozen=True)
class PolicyName(_Ranked):
    """The fields that tell policies apart, as in `Record`, and the labels made of them."""

    method: str
    variant: str | None = None
    protocol: str | None = None
    seed: int | None = None
    draw: int | None = None
    source_method: str | None = None
    source_seed: int | None = None

    @property
    def title(self) -> str:
        """The policy without its seed, for tables: "SA-DDQN (adversarial)", "always UP"."""
        return self._described(_METHODS[self.method].title if self.method in _METHODS else None, "weights on states of")

    @property
    def short(self) -> str:
        """The title, shortened for an axis: "SA-DDQN (kappa=0.02)", "shuffled SA-DDQN seed 0"."""
        return self._described(_METHODS[self.method].short if self.method in _METHODS else None, "on")

    @property
    def label(self) -> str:
        """`short` with the seed or the number of the draw: "SA-DDQN seed 0"."""
        if self.draw is not None:
            return f"{self.short} draw {self.draw}"
        return self.short if self.seed is None else f"{self.short} seed {self.seed}"

    @property
    def group(self) -> "PolicyName":
        """The name that the seeds of a method, or the draws of a null network, share."""
        return replace(self, seed=None, draw=None)

    @property
    def is_null_network(self) -> bool:
        """Whether the weights are random or shuffled."""
        return self.method in NULL_NETWORKS

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sort key: known methods as in `_METHODS`, others by name, baselines, null networks; then by seed."""
        known = list(_METHODS)
        place = len(known) + (self.method in BASELINES) + 2 * self.is_null_network
        words = (self.variant or "", self.protocol or "", self.source_method or "")
        numbers = (
            number for value in (self.source_seed, self.seed, self.draw) for number in (value is None, value or 0)
        )
        return (known.index(self.method) if self.method in known else place), self.method, *words, *numbers

    def _described(self, base: str | None, random_on: str) -> str:
        words = [self.variant, self.protocol]
        source = [_METHODS[self.source_method].short if self.source_method in _METHODS else self.source_method]
        source += [] if self.source_seed is None else [f"seed {self.source_seed}"]
        of_source = " ".join(filter(None, source))
        if self.method == CONSTANT_ACTION:
            base, words = f"always {self.variant}", [self.protocol]
        elif self.method in BASELINES:
            base = "random actions"
        elif self.method == "shuffled_weights":
            base = f"shuffled {of_source}" if of_source else None
        elif self.method == "random_weights" and of_source:
            base = f"random {random_on} {of_source}"
        extra = ", ".join(filter(None, words))
        return (base or self.method.replace("_", " ")) + (f" ({extra})" if extra else "")


def name_of(record: Record) -> PolicyName:
    """Name the policy that was measured, with "logits" if it has no Q-values.

    The protocol of an evaluation is part of this name. The protocol of maps is part of `states_of`.
    """
    variant = ", ".join(filter(None, (record.variant, record.outputs))) or None
    return PolicyName(
        record.method, variant, None if record.states_from else record.protocol,
        record.seed, record.draw, record.source_method, record.source_seed,
    )  # fmt: skip


def group_of(record: Record) -> PolicyName:
    """Name the policy as `name_of` does, without the seed or the number of the draw."""
    return name_of(record).group


def method_styles(names: Iterable[PolicyName]) -> dict[PolicyName, tuple[str, str]]:
    """Choose a colour and a marker for each group of `names` except baselines, which charts draw in grey.

    A known method's first variant has the method's own style; all others share `_MORE_STYLES`.
    """
    styles: dict[PolicyName, tuple[str, str]] = {}
    more = 0
    for group in sorted({name.group for name in names if name.method not in BASELINES}):
        style = _METHODS.get(group.method)
        if style and (style.colour, style.marker) not in styles.values():
            styles[group] = style.colour, style.marker
        else:
            styles[group] = _MORE_STYLES[more % len(_MORE_STYLES)]
            more += 1
    return styles


@dataclass(frozen=True)
class Condition(_Ranked):
    """The attack on an episode, by the fields of `Record`."""

    attack: str
    attack_steps: int | None = None
    attack_epsilon: float | None = None

    @property
    def label(self) -> str:
        """The attack and its radius, such as `PGD-10, ε = 1/255`; GWC is the greedy worst case.

        The radius of clean episodes is that of the certificates: `clean, proofs at ε = 1/255`.
        """
        if self.attack == "clean":
            return "clean" if self.attack_epsilon is None else f"clean, proofs at {epsilon_text(self.attack_epsilon)}"
        names = {WORST_CASE: "GWC", "fgsm": "FGSM", "pgd": f"PGD-{self.attack_steps}"}
        name = names.get(self.attack, self.attack)
        return name if self.attack_epsilon is None else f"{name}, {epsilon_text(self.attack_epsilon)}"

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sort key: radius; then clean, noise, FGSM, PGD, other attacks; then the number of steps."""
        order = ("clean", "noise", "fgsm", "pgd")
        place = order.index(self.attack) if self.attack in order else len(order)
        return self.attack_epsilon or 0.0, place, self.attack_steps or 0, self.attack


def condition_of(record: Record) -> Condition:
    """Return the attack under which the episodes of `record` were played, by default "clean"."""
    return Condition(record.attack or "clean", record.attack_steps, record.attack_epsilon)


@dataclass(frozen=True)
class StatesName(_Ranked):
    """The fields of `Record` that name a set of states. All are None for whole episodes."""

    states_from: str | None = None
    states_set: str | None = None
    protocol: str | None = None
    num_states: int | None = None

    @property
    def short(self) -> str:
        """`own`, `pool`, a file's name or `whole episodes`; in brackets, if known, `states_set` and `protocol`.

        `states_set` is the name of a file, and then not in brackets.
        """
        return self._described(self.states_from or "whole episodes", f"{self.states_set}")

    @property
    def label(self) -> str:
        """`own states`, `pooled states`, `states of FILE` or `states of clean episodes`, with `short`'s brackets."""
        adjective = "pooled" if self.states_from == "pool" else self.states_from
        name = f"{adjective} states" if adjective else "states of clean episodes"
        return self._described(name, f"states of {self.states_set}")

    @property
    def title(self) -> str:
        """`label` and, if it is known, N: `own states, N = 256`."""
        return self.label if self.num_states is None else f"{self.label}, N = {self.num_states}"

    def _described(self, name: str, name_of_file: str) -> str:
        is_file = self.states_from == "file"
        words = ", ".join(filter(None, (None if is_file else self.states_set, self.protocol)))
        return (name_of_file if is_file else name) + (f" ({words})" if words else "")

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sort key: own states, pool, file, whole episodes; then by set, protocol and N."""
        place = ("own", "pool", "file", None).index(self.states_from)
        return place, self.states_set or "", self.protocol or "", self.num_states or 0


def states_of(record: Record) -> StatesName:
    """Name the states that were mapped, with the protocol of the analysis; all fields are None for play."""
    if record.states_from is None:
        return StatesName()
    return StatesName(record.states_from, record.states_set, record.protocol, record.num_states)


class MetricName(NamedTuple):
    """A metric's short title, and the digits after the point in tables."""

    title: str
    digits: int


# M stands for a kind of map; its digits replace None. docs/glossary.md has the meanings.
_METRICS: dict[str, tuple[str, int | None]] = {
    "sparsity": ("S(M)", None),
    "sparsity_difference": ("ΔS(M)", None),
    "effective_pixels": ("S²(M)", 0),
    "map_entropy": ("entropy(M)", 4),
    "relative_map_entropy": ("entropy(M/max)", 4),
    "grid_excess": ("grid(M)", 2),
    "grid_p_value": ("p(M)", 3),
    "grid_null_quantile": ("grid(M) null", 2),
    "grid_crop_quantile": ("grid(M) crop", 2),
    "return_mean": ("return", 2),
    "return_std": ("std", 2),
    "flip_rate": ("flips", 4),
    "certified_rate": ("certified", 4),
    "action_share": ("fraction", 4),
    "q_gap_quantile": ("Q-gap", 4),
    "flip_pair_rate": ("flip pairs", 6),
    "tie_pair_rate": ("tie pairs", 6),
}


def metric_name(metric: str, map_kind: str | None = None) -> MetricName:
    """Look up title and digits of a metric of `map_kind` (None: of play); an unknown one keeps its name, 4 digits."""
    title, digits = _METRICS.get(metric, (metric.replace("_", " "), 4))
    kind = KINDS.get(map_kind or "")
    own = kind.digits if kind else 0
    return MetricName(title.replace("M", kind.symbol) if kind else title, own if digits is None else digits)
