"""What the numbers say of the paper's finding, in sentences that are computed, not written."""

from collections.abc import Iterator, Sequence

from analyze.report.formats import format_number
from analyze.report.literature import paper_number
from analyze.report.names import (
    attack_label,
    base_method,
    is_control,
    method_label,
    method_rank,
    metric_name,
    states_label,
)
from nrmap.maps.differences import DIFFERENCE
from nrmap.play.evaluation import BASELINE_METHOD
from nrmap.support.records import Record, select

# How far a game's policies were to lead the best constant action, where that was said in advance.
LEADS = {"Freeway": 3.0}


def glance(records: Sequence[Record], differences: Sequence[Record] = ()) -> list[str]:
    """Sentences on one game: sparser or not, seed by seed and by how much, and above the best constant action or not.

    A policy is above it with the lower end of its interval, and by as much as `LEADS` asks for.
    """
    return [*_sparsity(records, differences), *_returns(records)]


def _sparsity(records: Sequence[Record], differences: Sequence[Record]) -> Iterator[str]:
    maps = [
        record
        for record in select(records, metric="kmap_sparsity", item=None)
        if record.states_from and not is_control(record.method)
    ]
    methods = sorted({record.method for record in maps}, key=method_rank)
    vanilla = next((method for method in methods if base_method(method) == "ddqn"), None)
    sets = sorted({(r.states_from or "", r.num_states or 0) for r in maps}, key=lambda one: (one[0] != "own", one))
    for states_from, num_states in sets:
        for method in methods:
            if vanilla is None or base_method(method) == "ddqn":
                continue
            pairs = [
                (ours.value, other.value)
                for ours in select(maps, method=vanilla, states_from=states_from, num_states=num_states)
                for other in select(maps, method=method, states_from=states_from, num_states=num_states, seed=ours.seed)
            ]
            if pairs:
                where = f"{states_label(states_from)}, N = {num_states}"
                sentence = _comparison(pairs, vanilla, method, where, maps[0].game)
                mine = select(differences, method=method, item=vanilla, states_from=states_from, num_states=num_states)
                yield " ".join([sentence, *_differences(mine, vanilla)])


def _comparison(
    pairs: Sequence[tuple[float | None, float | None]], vanilla: str, method: str, where: str, game: str
) -> str:
    defined = [(ours, other) for ours, other in pairs if ours is not None and other is not None]
    sparser = sum(other < ours for ours, other in defined)
    undefined = len(pairs) - len(defined)
    seeds = "seed" if len(defined) == 1 else "seeds"
    text = (
        f"{where[0].upper()}{where[1:]}: KMAP of {method_label(method)} is sparser than that of "
        f"{method_label(vanilla)} in {sparser} of {len(defined)} {seeds}"
    )
    text += f" where both are defined; S(K) is undefined in {undefined}." if undefined else "."
    first, second = (paper_number(game, base_method(one), "kmap_sparsity") for one in (vanilla, method))
    if first and second:
        relation = "sparser" if second.value < first.value else "not sparser"
        text += f" In the paper it is {relation}: {second.printed} against {first.printed}."
    return text


def _differences(differences: Sequence[Record], base: str) -> Iterator[str]:
    """S(K) of a method minus that of `base`, on the same states and of the means over seeds, each with its interval.

    Where K of a policy is 0 everywhere the margin-drop map, which needs no flip, stands beside it.
    """
    without_flips = any(record.value is None for record in select(differences, metric=f"kmap{DIFFERENCE}"))
    for kind in ("kmap", "margin_drop") if without_flips else ("kmap",):
        mine = sorted(select(differences, metric=f"{kind}{DIFFERENCE}"), key=lambda record: record.seed or 0)
        paired = [f"{_with_interval(record)} (seed {record.seed})" for record in mine if record.seed is not None]
        of_means = [_with_interval(record) for record in mine if record.seed is None]
        parts = [
            f"{what}: {', '.join(values)}"
            for what, values in (("on the same states", paired), ("of the means over seeds", of_means))
            if values
        ]
        if parts:
            title = metric_name(f"{kind}_sparsity").title
            yield f"{title} minus that of {method_label(base)}, {'; '.join(parts)}."


def _with_interval(record: Record) -> str:
    """`-31.20 [-33.00, -29.40]`."""
    digits = metric_name(record.metric).digits
    value, low, high = (
        None if x is None else format_number(x, digits) for x in (record.value, record.low, record.high)
    )
    if value is None:
        return "undefined"
    return f"{value} (no interval)" if low is None else f"{value} [{low}, {high}]"


def _returns(records: Sequence[Record]) -> Iterator[str]:
    means = select(records, metric="return_mean")
    constants = [
        record for record in select(means, method=BASELINE_METHOD) if (record.attack or "").startswith("constant:")
    ]
    best = max(constants, key=lambda record: record.value or 0.0, default=None)
    if best is None or best.value is None:
        return
    floor, lead = best.value, LEADS.get(best.game, 0.0)
    yield f"The best constant action, {attack_label(best.attack)}, returns {floor:.2f}."
    by_lead = f", and by {lead:g} points or more" if lead else ""
    for method in sorted({record.method for record in means} - {BASELINE_METHOD}, key=method_rank):
        clean = [record for record in select(means, method=method, attack="clean") if record.value is not None]
        judged = [record for record in clean if record.low is not None]
        if not clean:
            continue
        above = sum((r.low or 0.0) > floor and (r.value or 0.0) >= floor + lead for r in judged)
        text = (
            f"{method_label(method)}: clean {', '.join(_with_interval(record) for record in clean)}. Above the best "
            f"constant action with the whole 95% interval{by_lead}: {above} of {len(judged)}."
        )
        if len(judged) < len(clean):
            text += f" Without an interval: {len(clean) - len(judged)}."
        yield text + _under_attack(select(means, method=method))


def _under_attack(means: Sequence[Record]) -> str:
    """The returns of a method's policies under the least PGD of all that were played: fewest steps, smallest ball."""
    attacked = [record for record in means if (record.attack or "").startswith("pgd-") and record.value is not None]
    if not attacked:
        return ""

    def strength(record: Record) -> tuple[int, float]:
        steps, *_ = (record.attack or "").removeprefix("pgd-").split()  # what tells two of a name apart stays behind it
        return int(steps), record.attack_epsilon or 0.0

    least = min(map(strength, attacked))
    same = [record for record in attacked if strength(record) == least]
    label = attack_label(same[0].attack, same[0].attack_epsilon)
    return f" Under {label}: {', '.join(_with_interval(record) for record in same)}."
