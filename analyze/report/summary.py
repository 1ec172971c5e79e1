"""The page's summary of the paper's finding, in sentences computed from the records."""

from collections.abc import Iterator, Sequence

from analyze.report.formats import counted, format_number
from analyze.report.literature import paper_number
from analyze.report.names import (
    attack_label,
    base_method,
    is_control,
    method_label,
    method_rank,
    metric_name,
    policy_order,
    states_label,
)
from analyze.report.play_panels import of_most_episodes
from nrmap.maps.differences import DIFFERENCE
from nrmap.play.evaluation import BASELINE_METHOD
from nrmap.support.records import Record, select

# The lead over the best constant action that was set as a target before training.
LEADS = {"Freeway": 3.0}


def glance(records: Sequence[Record], differences: Sequence[Record] = ()) -> list[str]:
    """Sentences on one game: sparsity of every method against the vanilla one, and returns against constant actions.

    A policy counts as above the best constant action if its whole interval is, and its mean by `LEADS` or more.
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
    if vanilla is None:
        return
    sets = sorted({(r.states_from or "", r.num_states or 0) for r in maps}, key=lambda one: (one[0] != "own", one))
    for states_from, num_states in sets:
        on_these = select(maps, states_from=states_from, num_states=num_states)
        for method in methods:
            pairs = [
                (base.value, other.value)
                for base in select(on_these, method=vanilla)
                for other in select(on_these, method=method, seed=base.seed)
            ]
            if pairs and base_method(method) != "ddqn":
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
    text = (
        f"{where[0].upper()}{where[1:]}: KMAP of {method_label(method)} is sparser than that of "
        f"{method_label(vanilla)} in {sparser} of {counted(len(defined), 'seed')}"
    )
    text += f" where both are defined; S(K) is undefined in {undefined}." if undefined else "."
    first, second = (paper_number(game, base_method(one), "kmap_sparsity") for one in (vanilla, method))
    if first and second:
        relation = "sparser" if second.value < first.value else "not sparser"
        text += f" In the paper it is {relation}: {second.printed} against {first.printed}."
    return text


def _differences(differences: Sequence[Record], base: str) -> Iterator[str]:
    """S(K) of a method minus S(K) of `base`, seed by seed on the same states, and between the means over seeds.

    Where some K is 0 everywhere the margin-drop map, which needs no flip, is added.
    """
    without_flips = any(record.value is None for record in select(differences, metric=f"kmap{DIFFERENCE}"))
    for kind in ("kmap", "margin_drop") if without_flips else ("kmap",):
        mine = sorted(select(differences, metric=f"{kind}{DIFFERENCE}"), key=lambda record: record.seed or 0)
        paired = [record for record in mine if record.seed is not None]
        of_means = [record for record in mine if record.seed is None]
        parts = [
            f"{label}: {_values(differing)}"
            for label, differing in (("on the same states", paired), ("of the means over seeds", of_means))
            if differing
        ]
        if parts:
            title = metric_name(f"{kind}_sparsity").title
            yield f"{title} minus that of {method_label(base)}, {'; '.join(parts)}."


def _values(records: Sequence[Record]) -> str:
    """`-31.20 [-33.00, -29.40], -30.50 (seeds 0, 1)`: values, intervals where there are any, and seeds."""
    texts = []
    for record in records:
        digits = metric_name(record.metric).digits
        value, low, high = (
            None if x is None else format_number(x, digits, scientific=False)
            for x in (record.value, record.low, record.high)
        )
        texts.append(f"{value or 'undefined'}{f' [{low}, {high}]' if low else ''}")
    seeds = [str(record.seed) for record in records if record.seed is not None]
    suffix = f" ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)})" if seeds else ""
    return ", ".join(texts) + suffix


def _returns(records: Sequence[Record]) -> Iterator[str]:
    means = sorted(of_most_episodes(select(records, metric="return_mean")), key=policy_order)
    means = [record for record in means if record.value is not None]
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
        clean = select(means, method=method, attack="clean")
        judged = [record for record in clean if record.low is not None]
        if not clean:
            continue
        above = sum((r.low or 0.0) > floor and (r.value or 0.0) >= floor + lead for r in judged)
        text = (
            f"{method_label(method)}: clean {_values(clean)}. "
            f"Whole 95% interval above the best constant action{by_lead}: {above} of {len(judged)}."
        )
        if len(judged) < len(clean):
            text += f" Without an interval: {len(clean) - len(judged)}."
        yield " ".join([text, *_under_attack(select(means, method=method))])


def _under_attack(means: Sequence[Record]) -> Iterator[str]:
    """The returns of a method's policies under the strongest attack at each radius: the PGD with most steps."""
    attacked = [record for record in means if _pgd_steps(record)]
    for radius in sorted({record.attack_epsilon or 0.0 for record in attacked}):
        at_radius = select(attacked, attack_epsilon=radius)
        steps = max(map(_pgd_steps, at_radius))
        strongest = [record for record in at_radius if _pgd_steps(record) == steps]
        label = attack_label(strongest[0].attack, radius)
        episodes = counted(max(record.episodes or 0 for record in strongest), "episode")
        yield f"Under {label} over {episodes}: {_values(strongest)}."


def _pgd_steps(record: Record) -> int:
    """The steps of a PGD attack, 0 for other attacks; words behind its name tell several attacks of a name apart."""
    name, _, steps = (record.attack or "").partition("-")
    return int(steps.split()[0]) if name == "pgd" else 0
