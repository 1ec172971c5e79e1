"""The page's summary: a few sentences on each game, computed from the records. The tables have the details."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from analyze.report.formats import counted
from analyze.report.literature import paper_number
from analyze.report.names import group_of, grouped, name_of, states_of
from analyze.report.pairing import BASE
from analyze.report.results import best_constant_actions, of_most_episodes
from nrmap.robustness.attacks import GRADIENT_ATTACKS
from nrmap.robustness.perturbations import epsilon_text
from nrmap.support.records import Record, select

# The lead over the best constant action that was set as a target before training.
LEADS = {"Freeway": 3.0}


def glance(records: Sequence[Record], differences: Sequence[Record] = ()) -> list[str]:
    """Say in sentences how sparse the KMAPs of a game are beside vanilla's, what grids maps show, and the returns.

    `differences` are the records of differences from vanilla; without them no interval of one is quoted.
    """
    return [*_sparsity(records, differences), *_grid(records), *_returns(records)]


def _sparsity(records: Sequence[Record], differences: Sequence[Record]) -> Iterator[str]:
    sizes = select(records, metric="sparsity", map_kind="kmap", is_trained=True, is_part=False)
    of_kmap = select(differences, map_kind="kmap", compared_with=BASE)
    for states, here in grouped(sizes, states_of).items():
        methods = {name: {r.seed: r.value for r in mine} for name, mine in grouped(here, group_of).items()}
        base = next((name for name in methods if name.method == BASE), None)
        for name, ours in methods.items():
            if base is None or name.method == BASE or not ours.keys() & methods[base].keys():
                continue
            pairs = [(ours[seed], value) for seed, value in methods[base].items() if seed in ours]
            defined = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
            sparser = sum(mine < other for mine, other in defined)
            undefined = f", undefined in {len(pairs) - len(defined)}" if len(pairs) > len(defined) else ""
            means = " against ".join(_mean(values) for values in zip(*defined, strict=True)) or "undefined"
            compared = [r for r in of_kmap if (group_of(r), states_of(r)) == (name, states)]
            printed = [paper_number(here[0].game, method.method, "sparsity", "kmap") for method in (name, base)]
            numbers = [_short(float(number.printed)) for number in printed if number]
            yield " ".join(
                [
                    f"KMAP of {name.title} is sparser than that of {base.title} in {sparser} of "
                    f"{counted(len(defined), 'seed')}{undefined} on {states.title}: S(K) {means}.",
                    *_intervals(compared),
                    *([f"In the paper: {' against '.join(numbers)}."] if len(numbers) == 2 else []),
                ]
            )


def _intervals(differences: Sequence[Record]) -> Iterator[str]:
    """Count the seeds whose interval of the difference is below 0; say whether the interval over seeds contains 0."""
    defined = [record for record in differences if record.low is not None and record.high is not None]
    single = [record for record in defined if record.seed is not None]
    if single:
        below = sum((record.high or 0.0) < 0 for record in single)
        none = ": no difference is shown" * (not any((r.low or 0.0) > 0 or (r.high or 0.0) < 0 for r in single))
        yield f"The difference's interval over episodes is below 0 in {below} of {counted(len(single), 'seed')}{none}."
    for low, high in ((record.low or 0.0, record.high or 0.0) for record in defined if record.seed is None):
        relation = "contains" if low <= 0 <= high else "excludes"
        yield f"The interval over seeds, {_short(low)} to {_short(high)}, {relation} 0."


def _grid(records: Sequence[Record]) -> Iterator[str]:
    for kind, name in (("kmap", "KMAP"), ("margin_drop", "the margin-drop map")):
        grids = select(records, metric="grid_excess", map_kind=kind, is_trained=True, is_part=False)
        for states, here in grouped((r for r in grids if r.value is not None), states_of).items():
            means = [f"{n.title} {_mean(r.value for r in mine)}" for n, mine in grouped(here, group_of).items()]
            paper = " The paper sees it in the adversarial agent." if kind == "kmap" else ""
            yield f"Grid number of {name} on {states.title} (1: no grid): {', '.join(means)}.{paper}"


def _returns(records: Sequence[Record]) -> Iterator[str]:
    """Yield sentences on returns; none without constant actions.

    A seed counts as above the best constant action if its whole interval is, and its mean leads by `LEADS` or more.
    """
    means = [r for r in of_most_episodes(select(records, metric="return_mean")) if r.value is not None]
    best = best_constant_actions(means)
    if not best:
        return
    floor, lead = best[0].value or 0.0, LEADS.get(best[0].game, 0.0)
    by_lead = f" by {lead:g} points or more" if lead else ""
    names = " and ".join(name_of(record).title for record in best)
    subject, verb = ("action", "returns") if len(best) == 1 else ("actions", "return")
    yield f"The best constant {subject}, {names}, {verb} {_short(floor)}{_notes(best, 'actions')}."
    for group, mine in grouped(select(means, is_trained=True), group_of).items():
        clean = select(mine, attack="clean")
        judged = [record for record in clean if record.low is not None]
        above = sum((r.low or 0.0) > floor and (r.value or 0.0) >= floor + lead for r in judged)
        text = f"{group.title} returns {_range(record.value for record in clean)} clean{_notes(clean)}"
        text += f", above the best constant action{by_lead} in {above} of {counted(len(judged), 'seed')}" * bool(judged)
        attacked = [record for record in mine if record.attack in GRADIENT_ATTACKS]
        lowest = []
        for size, at in grouped(attacked, lambda record: record.attack_epsilon or 0.0).items():
            of_each = [min(r.value or 0.0 for r in records) for records in grouped(at, name_of).values()]
            lowest.append(f"{_range(of_each)} ({epsilon_text(size)})")
        played = f" Its lowest returns under the FGSM and PGD attacks played: {', '.join(lowest)}."
        yield f"{text}.{played * bool(lowest)}"


def _notes(records: Sequence[Record], of: str = "seeds") -> str:
    """Join the distinct notes of the records in brackets, such as that a step limit ended episodes; "" if none.

    A note that not all of the records have begins with the number of those that do. `of` says what they are.
    """
    counts = Counter(record.note for record in records if record.note)
    total = len(records)
    texts = [note if count == total else f"{count} of {total} {of}: {note}" for note, count in counts.items()]
    return f" ({'; '.join(texts)})" if texts else ""


def _mean(values: Iterable[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return _short(sum(numbers) / len(numbers)) if numbers else "undefined"


def _range(values: Iterable[float | None]) -> str:
    """Format the smallest and the largest value over seeds, or one if both look equal."""
    numbers = [_short(value) for value in sorted(value for value in values if value is not None)]
    return " – ".join(dict.fromkeys((numbers[0], numbers[-1]))) if numbers else "not measured"


def _short(value: float) -> str:
    """Format with three significant digits; from 1,000 on with all digits before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
