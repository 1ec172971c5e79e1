"""Tables of play: returns under every attack, actions, Q-gaps."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from analyze.report.formats import Cell, Column, Table, counted
from analyze.report.literature import PUBLISHED_RETURNS
from analyze.report.names import Condition, condition_of, name_of
from analyze.report.row_builder import NO_SEED, PUBLISHED, Head, Rows, cell_of, interval_notes, measured_column
from nrmap.play.evaluation import WORST_CASE
from nrmap.robustness.attacks import OBJECTIVES
from nrmap.support.records import Record, select

_ATTACK_NOTE = (
    f"FGSM and PGD try {len(OBJECTIVES)} objectives in turn, each with the attack's number of steps, until one flips "
    f"the action: FGSM takes up to {len(OBJECTIVES)} steps, PGD-10 up to {10 * len(OBJECTIVES)}."
)
_PUBLISHED_ATTACK_NOTE = (
    f"published: one PGD of 10 steps; the attack of this column takes up to {10 * len(OBJECTIVES)}, on "
    f"{len(OBJECTIVES)} objectives"
)
_GWC_NOTE = "GWC, the greedy worst case, plays the lowest-Q action that interval bounds cannot rule out."
_VACUOUS_NOTE = "proves nothing: the bounds certify no state at this radius"
_RETURN_METRICS = ("return_mean", "return_std", "flip_rate", "certified_rate")


def returns_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Returns, clean and under every attack, of policies, baselines and published agents."""
    chosen = [record for record in records if record.metric in _RETURN_METRICS]
    conditions = sorted({(condition_of(record), record.episodes) for record in chosen}, key=_rank)
    columns: list[Column] = []
    for condition, episodes in conditions:
        measured = {
            record.metric for record in chosen if (condition_of(record), record.episodes) == (condition, episodes)
        }
        group = f"{condition.label} ({counted(episodes or 0, 'episode')})"
        columns += [
            measured_column(metric, _key(metric, condition, episodes), group=group)
            for metric in _RETURN_METRICS
            if metric in measured
        ]
    rows = Rows(reference, "game", "policies", "player")
    for record in chosen:
        cell = cell_of(record)
        if record.attack == WORST_CASE and _proves_nothing(record, chosen):
            cell = Cell(cell.value, cell.low, cell.high, _VACUOUS_NOTE)
        rows.add(record, _key(record.metric, condition_of(record), record.episodes), cell)
    sources: dict[str, list[str]] = defaultdict(list)
    for published in PUBLISHED_RETURNS:
        same = Condition(published.attack or "clean", published.attack_steps, published.attack_epsilon)
        fitting = [count for condition, count in conditions if condition == same]
        if fitting and any(record.game == published.game for record in chosen):
            player = Head((99, published.source, published.agent), f"published: {published.agent}")
            note = None if published.attack == "clean" else _PUBLISHED_ATTACK_NOTE
            key = (Head((published.game,), published.game), Head((3,), PUBLISHED), player)
            rows.put(key, NO_SEED, _key(published.metric, same, fitting[-1]), Cell(published.printed, note=note))
            if published.agent not in sources[published.source]:
                sources[published.source].append(published.agent)
    attacks = {condition.attack for condition, _ in conditions}
    notes = [*interval_notes(chosen), *([_ATTACK_NOTE] if attacks & {"fgsm", "pgd"} else [])]
    notes += [_GWC_NOTE] if WORST_CASE in attacks else []
    notes += [f"Published {', '.join(agents)}: {source}." for source, agents in sources.items()]
    return rows.table("returns", "Returns of whole greedy episodes", columns, notes)


def _proves_nothing(record: Record, records: Sequence[Record]) -> bool:
    """Whether the bounds behind a greedy worst case certify no state at its radius."""
    same = {name: getattr(record, name) for name in ("game", "policy_sha256", "protocol", "attack_epsilon")}
    rates = [record.value for record in select(records, metric="certified_rate", **same)]
    return bool(rates) and not any(rates)


def action_table(records: Sequence[Record], game: str, *, reference: Collection[str] = ()) -> Table:
    """The fraction of steps that take each action, in clean episodes of one game."""
    chosen = [r for r in select(records, game=game, metric="action_share", attack="clean") if not r.is_baseline]
    actions = list(dict.fromkeys(record.action or "" for record in chosen))
    others = "all but the commonest"
    columns = [
        *(measured_column("action_share", action, action) for action in actions),
        Column(others, others, digits=4),
    ]
    rows = Rows(reference, "game", "policies", "method", "episodes")
    largest: dict[Any, Record] = {}
    for record in chosen:
        rows.add(record, record.action or "", cell_of(record))
        most = largest.setdefault((name_of(record), record.policy_sha256, record.episodes), record)
        if (record.value or 0.0) > (most.value or 0.0):
            largest[name_of(record), record.policy_sha256, record.episodes] = record
    for most in largest.values():
        rows.add(most, others, Cell(1 - (most.value or 0.0)))
    title = f"Actions of the greedy policies in {game}, as fractions of all steps of the clean episodes"
    return rows.table(f"actions-{game}", title, columns, interval_notes(chosen))


def q_gap_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Quantiles over states of the lead of the greedy action."""
    chosen = select(records, metric="q_gap_quantile")
    quantiles = sorted({record.quantile for record in chosen if record.quantile is not None})
    columns = [measured_column("q_gap_quantile", f"{quantile}", f"{quantile:.0%}") for quantile in quantiles]
    rows = Rows(reference, "game", "policies", "states", "N", "method")
    for record in chosen:
        rows.add(record, f"{record.quantile}", cell_of(record))
    return rows.table("q-gaps", "Q-gap, the lead of the greedy action: quantiles over states", columns)


def _rank(pair: tuple[Condition, int | None]) -> tuple[Any, ...]:
    return *pair[0].rank, pair[1] or 0


def _key(metric: str, condition: Condition, episodes: int | None) -> str:
    """A column's name in CSV: "return_mean PGD-10, ε = 1/255, 20 episodes"."""
    return f"{metric} {condition.label}, {counted(episodes or 0, 'episode')}"
