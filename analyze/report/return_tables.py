"""Tables of what was played: returns under every attack, actions, Q-gaps; and of measures without a table."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from analyze.report.formats import Cell, Column, Table, counted
from analyze.report.literature import PUBLISHED_RETURNS
from analyze.report.names import METRICS, attack_label, epsilon_label, metric_name
from analyze.report.row_builder import PUBLISHED, Rows, cell_of, interval_notes, measured_column, place_of
from nrmap.play.evaluation import BASELINE_METHOD
from nrmap.robustness.attacks import OBJECTIVES
from nrmap.support.records import Record

# What stands below an attack's name here is more than the attack that others call so.
_ATTACK_NOTE = (
    f"FGSM and PGD try {len(OBJECTIVES)} objectives in turn, each with the attack's number of steps, until one flips "
    f"the action: FGSM takes up to {len(OBJECTIVES)} steps, PGD-10 up to {10 * len(OBJECTIVES)}."
)
_PUBLISHED_ATTACK_NOTE = (
    f"published: one PGD of 10 steps; the attack of this column takes up to {10 * len(OBJECTIVES)}, on "
    f"{len(OBJECTIVES)} objectives"
)
_RETURN_METRICS = ("return_mean", "return_std", "flip_rate", "certified_rate")
# How an episode was played: the attack, its radius, and over how many episodes.
_Condition = tuple[str, float | None, int | None]


def returns_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Returns, clean and under every attack, of policies, players that do not look, and published agents."""
    chosen = [record for record in records if record.metric in _RETURN_METRICS and record.attack is not None]
    conditions = sorted({_condition(record) for record in chosen}, key=_strength)
    columns: list[Column] = []
    for condition in conditions:
        measured = {record.metric for record in chosen if _condition(record) == condition}
        group = f"{_heading(*condition[:2])} ({counted(condition[2] or 0, 'episode')})"
        columns += [
            measured_column(metric, _return_key(metric, condition), metric_name(metric).title, group=group)
            for metric in _RETURN_METRICS
            if metric in measured
        ]
    rows = Rows("game", "policies", "player")
    for record in chosen:
        baseline = record.method == BASELINE_METHOD
        player = f"{BASELINE_METHOD} ({attack_label(record.attack)})" if baseline else record.method
        key = (*place_of(record, reference), player)
        rows.put(key, record.seed, _return_key(record.metric, _condition(record)), cell_of(record))
    sources: dict[str, list[str]] = defaultdict(list)
    for one in PUBLISHED_RETURNS:
        fitting = [condition for condition in conditions if condition[:2] == (one.attack, one.attack_epsilon)]
        if fitting and any(record.game == one.game for record in chosen):
            key = (one.game, PUBLISHED, f"published: {one.agent}")
            note = None if one.attack == "clean" else _PUBLISHED_ATTACK_NOTE
            rows.put(key, None, _return_key(one.metric, fitting[-1]), Cell(one.printed, note=note))
            if one.agent not in sources[one.source]:
                sources[one.source].append(one.agent)
    searches = any(condition[0].startswith(("fgsm", "pgd")) for condition in conditions)
    notes = [*interval_notes(chosen), *([_ATTACK_NOTE] if searches else [])]
    notes += [f"Published {', '.join(agents)}: {source}." for source, agents in sources.items()]
    return rows.table("returns", "Returns of whole greedy episodes", columns, notes)


def action_table(records: Sequence[Record], game: str, *, reference: Collection[str] = ()) -> Table:
    """How often each action is taken in clean episodes of one game."""
    chosen = [r for r in records if (r.game, r.metric, r.attack) == (game, "action_share", "clean")]
    actions = list(dict.fromkeys(record.item or "" for record in chosen))
    others = "all but the commonest"
    columns = [
        *(measured_column("action_share", action, action) for action in actions),
        Column(others, others, digits=4),
    ]
    rows = Rows("game", "policies", "method", "episodes")
    largest: dict[tuple[object, ...], float] = defaultdict(float)
    for record in chosen:
        policy = (*place_of(record, reference), record.method, record.episodes, record.seed)
        largest[policy] = max(largest[policy], record.value or 0.0)
    for record in chosen:
        key = (*place_of(record, reference), record.method, record.episodes)
        rows.put(key, record.seed, record.item or "", cell_of(record))
        rows.put(key, record.seed, others, Cell(1 - largest[(*key, record.seed)]))
    title = f"Actions of the greedy policies in {game}, as shares of all steps of the clean episodes"
    return rows.table(f"actions-{game}", title, columns, interval_notes(chosen))


def q_gap_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Quantiles over states of the lead of the greedy action."""
    chosen = [record for record in records if record.metric == "q_gap_quantile"]
    quantiles = sorted({record.item or "" for record in chosen}, key=float)
    columns = [measured_column("q_gap_quantile", item, f"{float(item):.0%}") for item in quantiles]
    rows = Rows("game", "policies", "states", "N", "method")
    for record in chosen:
        key = (*place_of(record, reference), record.states_from or "whole episodes", record.num_states, record.method)
        rows.put(key, record.seed, record.item or "", cell_of(record))
    return rows.table("q-gaps", "Q-gap, the lead of the greedy action: quantiles over states", columns)


def other_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Every measured value whose metric this module does not know."""
    chosen = [record for record in records if record.metric not in METRICS]
    rows = Rows("game", "policies", "states", "N", "T", "method", "attack", "metric", "item")
    for r in chosen:
        attack = None if r.attack is None else attack_label(r.attack, r.attack_epsilon)
        what = (r.states_from, r.num_states, r.temperature, r.method, attack, r.metric, r.item)
        rows.put((*place_of(r, reference), *what), r.seed, "value", cell_of(r))
    columns = [Column("value", "value", digits=4, measured=True)]
    return rows.table("others", "Other measures", columns, interval_notes(chosen))


def _condition(record: Record) -> _Condition:
    if record.method == BASELINE_METHOD:
        return "clean", None, record.episodes
    return record.attack or "clean", record.attack_epsilon, record.episodes


def _heading(attack: str, attack_epsilon: float | None) -> str:
    """An attack's label. At a radius clean episodes are not attacked: what is proven of their states stands there."""
    if attack == "clean" and attack_epsilon is not None:
        return f"clean, proofs at {epsilon_label(attack_epsilon)}"
    return attack_label(attack, attack_epsilon)


def _strength(condition: _Condition) -> tuple[float, float, str, int]:
    """Sorts conditions: clean first, then by radius, and within a radius from noise to the longest search."""
    attack, attack_epsilon, episodes = condition
    kind, _, steps = attack.partition("-")
    search = {"clean": 0, "noise": 1, "fgsm": 2}.get(kind, 2 + int(steps) if steps.isdecimal() else 1e9)
    return attack_epsilon or 0.0, search, attack, episodes or 0


def _return_key(metric: str, condition: _Condition) -> str:
    attack, attack_epsilon, episodes = condition
    radius = "" if attack_epsilon is None else f" {epsilon_label(attack_epsilon)}"
    return f"{metric} {attack}{radius} {episodes} episodes"
