"""The page's summary of the paper's finding, in sentences computed from the records."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from analyze.report.formats import counted, format_number
from analyze.report.literature import paper_number
from analyze.report.names import PolicyName, StatesName, condition_of, metric_name, name_of, policy_order, states_of
from analyze.report.panels import best_constant_action, of_most_episodes
from nrmap.maps.differences import DIFFERENCE
from nrmap.support.records import Record, select

# The lead over the best constant action that was set as a target before training.
LEADS = {"Freeway": 3.0}


def glance(records: Sequence[Record], differences: Sequence[Record] = ()) -> list[str]:
    """Sentences on one game: sparsity against the vanilla method, the grid, and returns against constant actions.

    A policy counts as above the best constant action if its whole interval is, and its mean by `LEADS` or more.
    """
    return [*_sparsity(records, differences), *_grid(records), *_returns(records)]


def _sparsity(records: Sequence[Record], differences: Sequence[Record]) -> Iterator[str]:
    maps = select(records, metric="sparsity", map_kind="kmap")
    maps = [record for record in maps if not record.is_part and not record.is_null_network]
    groups = sorted({name_of(record).group for record in maps}, key=lambda name: name.rank)
    vanilla = next((group for group in groups if group.method == "ddqn"), None)
    for states, num_states in sorted(
        {(states_of(r), r.num_states or 0) for r in maps}, key=lambda s: (s[0].rank, s[1])
    ):
        here = [record for record in maps if (states_of(record), record.num_states) == (states, num_states)]
        for group in groups:
            if vanilla is None or group.method == "ddqn":
                continue
            ours = {record.seed: record.value for record in here if name_of(record).group == group}
            theirs = {record.seed: record.value for record in here if name_of(record).group == vanilla}
            pairs = [(theirs[seed], ours[seed]) for seed in theirs if seed in ours]
            if pairs:
                where = f"{states.label}, N = {num_states}"
                mine = [
                    record
                    for record in select(differences, num_states=num_states, compared_with="ddqn")
                    if (name_of(record).group, states_of(record)) == (group, states)
                    and record.compared_variant == vanilla.variant
                ]
                sentence = _comparison(pairs, vanilla, group, where, here[0].game)
                yield " ".join([sentence, *_differences(mine, vanilla)])


def _grid(records: Sequence[Record]) -> Iterator[str]:
    """The grid of KMAP for every set of states: mean, smallest and largest value over the seeds of each method."""
    grids = [r for r in select(records, metric="grid_excess", map_kind="kmap") if not r.is_part and r.value is not None]
    values: dict[tuple[StatesName, int], dict[PolicyName, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(grids, key=policy_order):
        if not record.is_null_network:
            values[states_of(record), record.num_states or 0][name_of(record).group].append(record.value or 0.0)
    for (states, num_states), groups in sorted(values.items(), key=lambda item: (item[0][0].rank, item[0][1])):
        texts = [f"{g.title} {sum(v) / len(v):.2f} ({min(v):.2f} – {max(v):.2f})" for g, v in groups.items()]
        yield (
            f"Grid of KMAP on {states.label}, N = {num_states}, about 1 without a grid; "
            f"mean and range over seeds: {'; '.join(texts)}."
        )


def _comparison(
    pairs: Sequence[tuple[float | None, float | None]], vanilla: PolicyName, other: PolicyName, where: str, game: str
) -> str:
    defined = [(first, second) for first, second in pairs if first is not None and second is not None]
    sparser = sum(second < first for first, second in defined)
    undefined = len(pairs) - len(defined)
    text = (
        f"{where[0].upper()}{where[1:]}: KMAP of {other.title} is sparser than that of {vanilla.title} "
        f"in {sparser} of {counted(len(defined), 'seed')}"
    )
    text += f" where both are defined; S(K) is undefined in {undefined}." if undefined else "."
    first, second = (paper_number(game, name.method, "sparsity", "kmap") for name in (vanilla, other))
    if first and second:
        relation = "sparser" if second.value < first.value else "not sparser"
        text += f" In the paper it is {relation}: {second.printed} against {first.printed}."
    return text


def _differences(differences: Sequence[Record], base: PolicyName) -> Iterator[str]:
    """S(K) of a method minus S(K) of `base`, seed by seed on the same states, and between the means over seeds.

    Where some K is 0 everywhere the margin-drop map, which needs no flip, is added.
    """
    without_flips = any(record.value is None for record in select(differences, metric=DIFFERENCE, map_kind="kmap"))
    for kind in ("kmap", "margin_drop") if without_flips else ("kmap",):
        mine = select(differences, metric=DIFFERENCE, map_kind=kind)
        mine = sorted(mine, key=lambda record: record.seed or 0)
        paired = [record for record in mine if record.seed is not None]
        of_means = [record for record in mine if record.seed is None]
        parts = [
            f"{label}: {_values(differing)}"
            for label, differing in (("on the same states", paired), ("of the means over seeds", of_means))
            if differing
        ]
        if parts:
            yield f"{metric_name('sparsity', kind).title} minus that of {base.title}, {'; '.join(parts)}."


def _values(records: Sequence[Record]) -> str:
    """`-31.20 [-33.00, -29.40], -30.50 (seeds 0, 1)`: values, intervals where there are any, and seeds."""
    texts = []
    for record in records:
        digits = metric_name(record.metric, record.map_kind).digits
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
    best = best_constant_action(means)
    if best is None or best.value is None:
        return
    floor, lead = best.value, LEADS.get(best.game, 0.0)
    yield f"The best constant action, {name_of(best).title}, returns {floor:.2f}."
    by_lead = f", and by {lead:g} points or more" if lead else ""
    for group in dict.fromkeys(name_of(record).group for record in means if not record.is_baseline):
        mine = [record for record in means if name_of(record).group == group]
        clean = select(mine, attack="clean")
        judged = [record for record in clean if record.low is not None]
        if not clean:
            continue
        above = sum((r.low or 0.0) > floor and (r.value or 0.0) >= floor + lead for r in judged)
        text = (
            f"{group.title}: clean {_values(clean)}. "
            f"Whole 95% interval above the best constant action{by_lead}: {above} of {len(judged)}."
        )
        if len(judged) < len(clean):
            text += f" Without an interval: {len(clean) - len(judged)}."
        yield " ".join([text, *_under_attack(mine)])


def _under_attack(means: Sequence[Record]) -> Iterator[str]:
    """The returns of a method's policies under the strongest attack at each radius: the PGD with most steps."""
    attacked = select(means, attack="pgd")
    for radius in sorted({record.attack_epsilon or 0.0 for record in attacked}):
        at_radius = select(attacked, attack_epsilon=radius)
        steps = max(record.attack_steps or 0 for record in at_radius)
        strongest = select(at_radius, attack_steps=steps)
        episodes = counted(max(record.episodes or 0 for record in strongest), "episode")
        yield f"Under {condition_of(strongest[0]).label} over {episodes}: {_values(strongest)}."
