"""Labels of policies, attacks, states and metrics: the only place that makes them from the fields of records."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nrmap.maps.kinds import KINDS
from nrmap.maps.null_networks import NULL_NETWORKS
from nrmap.play.evaluation import WORST_CASE
from nrmap.robustness.attacks import epsilon_text
from nrmap.support.records import BASELINES, CONSTANT_ACTION, Record


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


@dataclass(frozen=True)
class PolicyName:
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
        """The same, short enough for an axis: "SA-DDQN (kappa=0.02)", "shuffled SA-DDQN seed 0"."""
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
    def number(self) -> int | None:
        """The seed, or of a null network the number of its draw."""
        return self.seed if self.draw is None else self.draw

    def numbered(self, number: int | None) -> "PolicyName":
        """The policy of this group with that seed or number of a draw."""
        return replace(self, draw=number) if self.is_null_network else replace(self, seed=number)

    @property
    def is_null_network(self) -> bool:
        """Whether the weights are random or shuffled."""
        return self.method in NULL_NETWORKS

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts policies: known methods in their order, others by name, baselines, null networks; seeds last."""
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
    """The name of the policy that was measured; the protocol of an evaluation is part of it, that of maps is not."""
    return PolicyName(
        record.method, record.variant, None if record.states_from else record.protocol,
        record.seed, record.draw, record.source_method, record.source_seed,
    )  # fmt: skip


def policies_of(records: Iterable[Record]) -> list[PolicyName]:
    """Every policy that was measured, in order, without the baselines."""
    return sorted({name_of(record) for record in records if not record.is_baseline}, key=lambda name: name.rank)


def policy_order(record: Record) -> tuple[Any, ...]:
    """Sorts records by their policies."""
    return name_of(record).rank


def method_styles(names: Iterable[PolicyName]) -> dict[PolicyName, tuple[str, str]]:
    """Colour and marker of the group of every policy; a known method always has its own."""
    styles: dict[PolicyName, tuple[str, str]] = {}
    more = 0
    for group in sorted({name.group for name in names}, key=lambda name: name.rank):
        style = _METHODS.get(group.method)
        if style and (style.colour, style.marker) not in styles.values():
            styles[group] = style.colour, style.marker
        else:
            styles[group] = _MORE_STYLES[more % len(_MORE_STYLES)]
            more += 1
    return styles


class Condition(NamedTuple):
    """The attack on an episode, by the fields of `Record`."""

    attack: str
    attack_steps: int | None = None
    attack_epsilon: float | None = None

    @property
    def label(self) -> str:
        """`clean`; `PGD-10, ε = 1/255`; `GWC, ε = 3/255` for the greedy worst case."""
        if self.attack == "clean":
            return "clean" if self.attack_epsilon is None else f"clean, proofs at {epsilon_text(self.attack_epsilon)}"
        names = {WORST_CASE: "GWC", "fgsm": "FGSM", "pgd": f"PGD-{self.attack_steps}"}
        name = names.get(self.attack, self.attack)
        return name if self.attack_epsilon is None else f"{name}, {epsilon_text(self.attack_epsilon)}"

    @property
    def rank(self) -> tuple[float, int, int, str]:
        """Sorts conditions: by radius, then from clean over noise and longer attacks to the greedy worst case."""
        order = ("clean", "noise", "fgsm", "pgd")
        place = order.index(self.attack) if self.attack in order else len(order)
        return self.attack_epsilon or 0.0, place, self.attack_steps or 0, self.attack


def condition_of(record: Record) -> Condition:
    """The attack under which the episodes of `record` were played."""
    return Condition(record.attack or "clean", record.attack_steps, record.attack_epsilon)


class StatesName(NamedTuple):
    """The fields of `Record` that name a set of states."""

    states_from: str
    states_set: str | None = None
    protocol: str | None = None

    @property
    def short(self) -> str:
        """`own`, `pool` or a file's name, in brackets the words that tell sets apart."""
        return self._described(self.states_from, f"{self.states_set}")

    @property
    def label(self) -> str:
        """`own states`, `pooled states` or `states of FILE`, with the same words."""
        adjective = "pooled" if self.states_from == "pool" else self.states_from
        return self._described(f"{adjective} states", f"states of {self.states_set}")

    def _described(self, name: str, name_of_file: str) -> str:
        is_file = self.states_from == "file"
        words = ", ".join(filter(None, (None if is_file else self.states_set, self.protocol)))
        return (name_of_file if is_file else name) + (f" ({words})" if words else "")

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts sets: own before pooled, files last."""
        return {"own": 0, "pool": 1}.get(self.states_from, 2), self.states_set or "", self.protocol or ""


def states_of(record: Record) -> StatesName:
    """The states that maps were made of; the protocol of their analysis is part of the name."""
    return StatesName(record.states_from or "", record.states_set, record.protocol if record.states_from else None)


@dataclass(frozen=True)
class MetricName:
    """A metric's short title, the same for LaTeX, the digits after the point in tables, and its meaning."""

    title: str
    latex: str
    digits: int
    meaning: str


_ENTROPY = "−Σ p log p in nats, p the softmax of @ over its pixels (UAI 2021, eq. 8)"
_GRID = "Spectral energy of @ at the multiples of 1/8 cycle per pixel along both axes"
_GWC = (
    "GWC, the greedy worst case, takes the lowest-Q action that the bounds cannot rule out inside the ball: its flips "
    "bound those of any attack on the same states from above."
)
# Title, digits (None: those of the kind of map) and meaning; @ stands for the kind of map.
_OF_MAPS: dict[str, tuple[str, int | None, str]] = {
    "sparsity": ("S(@)", None, "‖M‖₁ / ‖M‖₂ of @ (eq. 9), from 1 for one pixel to √pixels for a flat map."),
    "sparsity_difference": ("ΔS(@)", None, "S of @ of a method minus that of another; below 0 it is sparser."),
    "effective_pixels": ("S²(@)", 0, "S² of @: the number of pixels of a flat map that is as sparse."),
    "map_entropy": ("entropy(@)", 4, f"{_ENTROPY}; it changes with N and the scale of rewards."),
    "relative_map_entropy": ("entropy(@/max)", 4, "The same of @ over its largest value."),
    "grid_excess": ("grid(@)", 2, f"{_GRID}, over that of the neighbouring frequencies; 1 without a grid."),
    "grid_p_value": ("p(@)", 3, "Fraction of random maps with the spectrum of @ but no grid that exceed its number."),
    "grid_null_quantile": ("grid(@) null", 2, "Quantiles of the grid number over those random maps."),
    "grid_crop_quantile": ("grid(@) crop", 2, "Quantiles of the grid number over random crops of @."),
}  # fmt: skip
_OTHERS: dict[str, tuple[str, int, str]] = {
    "return_mean": ("return", 2, "Mean undiscounted, unclipped return of whole greedy episodes."),
    "return_std": ("std", 2, "Standard deviation of the return over episodes (n − 1)."),
    "return": ("return", 2, "Undiscounted, unclipped return of one greedy episode."),
    "flip_rate": ("flips", 4, f"Fraction of states where the attack changes the greedy action. {_GWC}"),
    "certified_rate": ("certified", 4, "Fraction of states with a proof that no point of the ball changes the action."),
    "action_share": ("fraction", 4, "Fraction of the states in which the greedy policy takes the action."),
    "q_gap_quantile": ("Q-gap", 4, "Quantile over states of Q(s, a*) − max over the other actions."),
    "flip_pair_rate": ("flip pairs", 6, "Fraction of (state, pixel) pairs whose ablation changes the greedy action."),
    "tie_pair_rate": ("tie pairs", 6, "Fraction of (state, pixel) pairs whose greedy action is left to rounding."),
}  # fmt: skip


def glossary(records: Iterable[Record]) -> dict[str, MetricName]:
    """The names of all measured metrics that have a meaning, by the metric's key, kind by kind."""
    measured = {(record.map_kind, record.metric): record.metric_key for record in records}
    kinds = [(kind, metric) for kind in KINDS for metric in _OF_MAPS] + [(None, metric) for metric in _OTHERS]
    return {measured[pair]: metric_name(pair[1], pair[0]) for pair in kinds if pair in measured}


def metric_name(metric: str, map_kind: str | None = None) -> MetricName:
    """The names of a metric; an unknown one is called by its own."""
    if map_kind in KINDS and metric in _OF_MAPS:
        title, digits, meaning = _OF_MAPS[metric]
        kind = KINDS[map_kind]
        meaning = meaning.replace("@", f"the {kind.title}" if kind.title.endswith(" map") else kind.title)
        latex = re.sub(r"[a-z]{3,}", r"\\mathrm{\g<0>}", title).replace("Δ", r"\Delta ").replace("²", "^2")
        digits = kind.digits if digits is None else digits
        return MetricName(title.replace("@", kind.symbol), f"${latex.replace('@', kind.latex)}$", digits, meaning)
    title, some_digits, meaning = _OTHERS.get(metric, (metric.replace("_", " "), 4, ""))
    return MetricName(title, title, some_digits, meaning)
