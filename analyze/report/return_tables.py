"""Tables of play: returns under every attack, actions, Q-gaps.

`reference` holds the scales of the reference policies by hash; each scale gets rows of its own.
"""

from collections.abc import Mapping, Sequence

from analyze.report.formats import Cell, Column, Table, counted
from analyze.report.literature import PUBLISHED_RETURNS
from analyze.report.names import Condition, condition_of, gathered, name_of
from analyze.report.rows import PUBLISHED, Entry, Head, cell_of, heads_of, interval_notes, measured_column, table_of
from nrmap.play.evaluation import WORST_CASE
from nrmap.robustness.attacks import GRADIENT_ATTACKS, OBJECTIVES
from nrmap.support.records import Record, select

_RETURN_METRICS = ("return_mean", "return_std", "flip_rate", "certified_rate")
_ATTACK_NOTE = (
    f"FGSM and PGD try {len(OBJECTIVES)} objectives, each with the attack's number of steps, and the first that flips "
    f"the action counts: FGSM takes up to {len(OBJECTIVES)} steps, PGD-10 up to {10 * len(OBJECTIVES)}."
)
_PUBLISHED_ATTACK_NOTE = (
    f"published: one PGD of 10 steps; the attack of this column takes up to {10 * len(OBJECTIVES)}, on "
    f"{len(OBJECTIVES)} objectives"
)
_GWC_NOTE = "GWC, the greedy worst case, plays the lowest-Q action that interval bounds cannot rule out."
_VACUOUS_NOTE = "proves nothing: the bounds certify no state at this radius"


def returns_table(records: Sequence[Record], reference: Mapping[str, str] = {}) -> Table:
    """Build the table of returns, flip rates and certified rates of policies, baselines and published agents."""
    chosen = [record for record in records if record.metric in _RETURN_METRICS]
    conditions = {(condition_of(record), record.episodes or 0) for record in chosen}

    def entry(heads: dict[str, Head], metric: str, condition: Condition, episodes: int, cell: Cell) -> Entry:
        count = counted(episodes, "episode")
        column = measured_column(metric, f"{metric} {condition.label}, {count}", group=f"{condition.label} ({count})")
        return Entry(heads, (condition.rank, episodes, _RETURN_METRICS.index(metric)), column, cell)

    entries = []
    for record in chosen:
        cell = cell_of(record)
        if record.attack == WORST_CASE and _proves_nothing(record, chosen):
            cell = Cell(cell.value, cell.low, cell.high, _VACUOUS_NOTE)
        heads = heads_of(record, reference)
        entries.append(entry(heads, record.metric, condition_of(record), record.episodes or 0, cell))
    there = {column.key for _, _, column, _ in entries}
    games, shown = {record.game for record in chosen}, []
    for published in PUBLISHED_RETURNS:
        same = Condition(published.attack or "clean", published.attack_steps, published.attack_epsilon)
        episodes = max((count for condition, count in conditions if condition == same), default=0)
        heads = {
            "game": Head((published.game,), published.game),
            "policies": Head((3,), PUBLISHED),
            "player": Head((99, published.source, published.agent), f"published: {published.agent}"),
            "seed": Head(("seed", -1), None),
        }
        note = None if published.attack == "clean" else _PUBLISHED_ATTACK_NOTE
        beside = entry(heads, published.metric, same, episodes, Cell(published.printed, note=note))
        if beside.column.key in there and published.game in games:
            entries.append(beside)
            shown.append(published)
    attacks = {condition.attack for condition, _ in conditions}
    notes = [*interval_notes(chosen), *([_ATTACK_NOTE] if attacks & {*GRADIENT_ATTACKS} else [])]
    notes += [_GWC_NOTE] if WORST_CASE in attacks else []
    for source, numbers in gathered(shown, lambda published: published.source).items():
        notes.append(f"Published {', '.join(dict.fromkeys(number.agent for number in numbers))}: {source}.")
    return table_of("returns", "Returns of whole greedy episodes", ("game", "policies", "player"), entries, notes)


def _proves_nothing(record: Record, records: Sequence[Record]) -> bool:
    """Whether the bounds behind a greedy worst case certify no state at its radius; False if that was not measured."""
    same = {name: getattr(record, name) for name in ("game", "policy_sha256", "protocol", "attack_epsilon")}
    rates = [record.value for record in select(records, metric="certified_rate", **same)]
    return bool(rates) and not any(rates)


def action_table(records: Sequence[Record], game: str, reference: Mapping[str, str] = {}) -> Table:
    """Build the table of the fraction of steps that take each action, in one game's clean episodes."""
    chosen = select(records, game=game, metric="action_share", attack="clean", is_baseline=False)
    entries: list[Entry] = []
    for record in chosen:
        action = record.action or ""
        column = measured_column("action_share", action, action)
        entries.append(Entry(heads_of(record, reference), (0,), column, cell_of(record)))
    others = Column("all but the commonest", "all but the commonest", digits=4)
    for row in gathered(chosen, lambda r: (name_of(r), r.policy_sha256, r.episodes)).values():
        commonest = max(record.value or 0.0 for record in row)
        entries.append(Entry(heads_of(row[0], reference), (1,), others, Cell(1 - commonest)))
    title = f"Actions of the greedy policies in {game}, as fractions of all steps of the clean episodes"
    index = ("game", "policies", "method", "episodes")
    return table_of(f"actions-{game}", title, index, entries, interval_notes(chosen))


def q_gap_table(records: Sequence[Record], reference: Mapping[str, str] = {}) -> Table:
    """Build the table of Q-gaps, the lead of the greedy action over the next: quantiles over states."""
    entries = []
    for record in select(records, metric="q_gap_quantile"):
        quantile = record.quantile or 0.0
        column = measured_column("q_gap_quantile", f"{quantile}", f"{quantile:.0%}")
        entries.append(Entry(heads_of(record, reference), (quantile,), column, cell_of(record)))
    title = "Q-gap, the lead of the greedy action: quantiles over states"
    return table_of("q-gaps", title, ("game", "policies", "states", "N", "method"), entries)
