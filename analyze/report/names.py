"""What tables, figures and the report call things: methods, attacks, metrics."""

from collections.abc import Iterable
from dataclasses import dataclass

from nrmap.maps.null_networks import CONTROL_KINDS
from nrmap.maps.sparsity import MAP_NAMES, MapKind
from nrmap.play.evaluation import BASELINE_METHOD, WORST_CASE
from nrmap.support.records import Record

# In the order in which tables and figures show them; other methods follow, by name.
_METHODS = {
    "ddqn": "DDQN (vanilla)",
    "ddqn_continued": "DDQN continued (κ = 0)",
    "sa_ddqn": "SA-DDQN (adversarial)",
    "sa_ddqn_ibp": "SA-DDQN (interval bounds)",
}
_SHORT = {"ddqn": "DDQN", "ddqn_continued": "DDQN κ=0", "sa_ddqn": "SA-DDQN", "sa_ddqn_ibp": "SA-DDQN IBP"}
# Okabe and Ito's colours, which colour-blind readers can tell apart, without the yellow that white paper swallows.
_COLOURS = {"ddqn": "#0072B2", "ddqn_continued": "#009E73", "sa_ddqn": "#D55E00", "sa_ddqn_ibp": "#CC79A7"}
_MORE_COLOURS = ("#56B4E9", "#E69F00", "#000000", "#7F7F7F")
# Along with its colour every method has a marker, for print without colours.
_MARKERS = {"ddqn": "o", "ddqn_continued": "^", "sa_ddqn": "s", "sa_ddqn_ibp": "D"}
_MORE_MARKERS = ("v", "P", "X", "*")


@dataclass(frozen=True)
class MetricName:
    """A metric's short title, the same for LaTeX, the digits after the point in tables, and what it is."""

    title: str
    latex: str
    digits: int
    meaning: str


_SYMBOLS: dict[MapKind, tuple[str, str]] = {
    "kmap": ("K", r"\mathcal{K}"),
    "hmap": ("H", r"\mathcal{H}"),
    "kl": ("KL", r"\mathrm{KL}"),
    "margin_drop": ("Δm", r"\Delta m"),
}
# The sums of the maps that are almost flat need more digits to show that they are not.
_SPARSITY_DIGITS = {"kmap": 2, "hmap": 6, "kl": 2, "margin_drop": 2}


def _map_metrics() -> dict[str, MetricName]:
    names = {}
    for kind, (short, symbol) in _SYMBOLS.items():
        name = f"the {MAP_NAMES[kind]}" if MAP_NAMES[kind].endswith(" map") else MAP_NAMES[kind]
        names[f"{kind}_sparsity"] = MetricName(
            f"S({short})",
            f"$S({symbol})$",
            _SPARSITY_DIGITS[kind],
            f"‖M‖₁ / ‖M‖₂ of {name} (eq. 9), from 1 for one pixel to √pixels for a flat map; smaller is sparser.",
        )
        names[f"{kind}_sparsity_difference"] = MetricName(
            f"ΔS({short})",
            rf"$\Delta S({symbol})$",
            _SPARSITY_DIGITS[kind],
            f"S of {name} of a method minus S of {name} of another: below 0 the first is sparser.",
        )
        names[f"{kind}_effective_pixels"] = MetricName(
            f"S²({short})", f"$S^2({symbol})$", 0, f"S² of {name}: the pixels of a flat map that is as sparse."
        )
        names[f"{kind}_map_entropy"] = MetricName(
            f"entropy({short})",
            rf"$\mathrm{{entropy}}({symbol})$",
            4,
            f"−Σ p log p in nats, p the softmax of {name} over its pixels (UAI 2021, eq. 8), on the sum over states: "
            "it changes with N and with the scale of the rewards.",
        )
        names[f"{kind}_relative_map_entropy"] = MetricName(
            f"entropy({short}/max)",
            rf"$\mathrm{{entropy}}({symbol}/\max)$",
            4,
            f"The same of {name} divided by its largest magnitude, which does not change with N alone.",
        )
        names[f"{kind}_grid_excess"] = MetricName(
            f"grid({short})",
            rf"$\mathrm{{grid}}({symbol})$",
            2,
            f"Spectral energy of {name} at the multiples of 1/8 cycle per pixel along both axes, over the mean of the "
            "neighbouring frequencies: about 1 without a grid.",
        )
        names[f"{kind}_grid_p_value"] = MetricName(
            f"p({short})",
            rf"$p({symbol})$",
            3,
            f"Share of random maps with the spectrum of {name}, but without the grid, whose number is as large.",
        )
        for quantiles, of in (("null", "those random maps"), ("crop", "crops at random places of the map")):
            names[f"{kind}_grid_{quantiles}_quantile"] = MetricName(
                f"grid({short}) {quantiles}",
                rf"$\mathrm{{grid}}({symbol})$ {quantiles}",
                2,
                f"Quantiles of the grid's number of {name} over {of}.",
            )
    return names


METRICS: dict[str, MetricName] = _map_metrics() | {
    "return_mean": MetricName(
        "return",
        "return",
        2,
        "Mean undiscounted return of whole greedy episodes, unclipped. In the worst case the action taken is that of "
        "lowest Q among those that are not proven impossible inside the ball.",
    ),
    "return_std": MetricName("std", "std", 2, "Standard deviation of the return over episodes (n − 1)."),
    "return": MetricName("return", "return", 2, "Undiscounted return of one greedy episode, unclipped."),
    "flip_rate": MetricName(
        "flips",
        "flips",
        4,
        "Share of states where the attack changes the greedy action: a lower bound on weakness. In the worst case: "
        "where an action of lower Q is not proven impossible, an upper bound for any attack on the same states.",
    ),
    "certified_rate": MetricName(
        "certified", "certified", 4, "Share of states where no point of the ball can change the greedy action: proven."
    ),
    "action_share": MetricName("share", "share", 4, "Share of the states in which the greedy policy takes the action."),
    "q_gap_quantile": MetricName(
        "Q-gap",
        "Q-gap",
        4,
        "Quantile over states of Q(s, a*) − max over the other actions: how clear a decision is.",
    ),
    "flip_pair_rate": MetricName(
        "flip pairs", "flip pairs", 6, "Share of (state, pixel) pairs whose ablation changes the greedy action."
    ),
    "tie_pair_rate": MetricName(
        "tie pairs", "tie pairs", 6, "Share of (state, pixel) pairs whose greedy action is left to rounding."
    ),
}


def metric_name(metric: str) -> MetricName:
    """The names of a metric; one that is not known here is called by its own."""
    return METRICS.get(metric) or MetricName(metric.replace("_", " "), metric.replace("_", " "), 4, "")


def is_control(method: str) -> bool:
    """Whether the method is no training at all: a network with random or shuffled weights."""
    return base_method(method) in CONTROL_KINDS


def base_method(method: str) -> str:
    """`sa_ddqn` of `sa_ddqn (kappa=0.02)`: the method without what tells several policies of it apart."""
    return method.partition(" (")[0]


def method_label(method: str) -> str:
    """The method in words, with what tells several policies of it apart."""
    base = base_method(method)
    return _METHODS.get(base, base.replace("_", " ")) + method[len(base) :]


def policy_label(method: str, seed: int | None) -> str:
    """`SA-DDQN seed 0`, short enough for an axis; of a control `seed` is the number of the draw."""
    base, words = base_method(method), method.partition(" (")[2].removesuffix(")")
    if is_control(method) and words:
        name = " ".join([base.partition("_")[0], *(_SHORT.get(word, word) for word in words.split(" "))])
    else:
        name = _SHORT.get(base, base.replace("_", " ")) + method[len(base) :]
    return name if seed is None else f"{name} {'draw' if is_control(method) else 'seed'} {seed}"


def method_rank(method: str) -> tuple[int, str]:
    """Sorts methods: the known ones in their order, others by name, players that do not look, controls."""
    base = base_method(method)
    order = list(_METHODS)
    place = len(order) + (base == BASELINE_METHOD) + 2 * is_control(method)
    return (order.index(base) if base in order else place), method


def method_styles(methods: list[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every method; a known one always has its own, whatever others there are."""
    styles: dict[str, tuple[str, str]] = {}
    more = 0
    for method in sorted(set(methods), key=method_rank):
        taken = {colour for colour, _ in styles.values()}
        if method in _COLOURS and _COLOURS[method] not in taken:
            styles[method] = _COLOURS[method], _MARKERS[method]
        else:
            styles[method] = _MORE_COLOURS[more % len(_MORE_COLOURS)], _MORE_MARKERS[more % len(_MORE_MARKERS)]
            more += 1
    return styles


def epsilon_label(attack_epsilon: float) -> str:
    """A radius as a reader knows it: `1/255`, or a decimal number where it is no such fraction."""
    levels = attack_epsilon * 255
    return f"{levels:.0f}/255" if abs(levels - round(levels)) < 1e-6 and round(levels) else f"{attack_epsilon:.4g}"


def attack_label(attack: str | None, attack_epsilon: float | None = None) -> str:
    """`PGD-10, 1/255`; `clean`; `always UP`; `random actions`; `worst case, 1/255`.

    What tells several players of a kind apart stays behind it: `always UP (run_seed=1)`.
    """
    name = attack or "clean"
    if name.startswith("constant:"):
        return f"always {name.removeprefix('constant:')}"
    if name.startswith("random_policy"):
        return f"random actions{name.removeprefix('random_policy')}"
    if name == WORST_CASE:
        name = "worst case"
    name = name.upper() if name.startswith(("pgd", "fgsm")) else name
    return name if attack_epsilon is None else f"{name}, {epsilon_label(attack_epsilon)}"


def states_label(states_from: str) -> str:
    """`own states`, `pooled states`, `states of FILE`, with what tells several such sets apart."""
    kind, _, rest = states_from.partition(" ")
    name = {"own": "own states", "pool": "pooled states"}.get(kind, f"states of {kind}")
    return f"{name} {rest}".strip()


def policies_of(records: Iterable[Record]) -> list[tuple[str, int | None]]:
    """Method and seed of every policy that was measured, in order; players that do not look are none of them."""
    unique = {(record.method, record.seed) for record in records if record.method != BASELINE_METHOD}
    return sorted(unique, key=lambda policy: (method_rank(policy[0]), policy[1] is None, policy[1] or 0))


def policy_order(record: Record) -> tuple[tuple[int, str], bool, int]:
    """Sorts records by method, then by seed."""
    return method_rank(record.method), record.seed is None, record.seed or 0
