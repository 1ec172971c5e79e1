"""Tables out of records: table 1 in the paper's shape, every measure of the maps, returns, actions.

`reference` names, by the hashes of their files, the policies that came with the project; their
rows stand apart from those of policies trained here.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console

from analyze.formats import Cell, Column, Table, print_table
from analyze.names import METRICS, attack_label, base_method, epsilon_label, method_label, method_rank, metric_name
from analyze.published import PUBLISHED_RETURNS, paper_number
from analyze.rows import PUBLISHED, Rows, cell_of, place_of
from nrmap.evaluation import BASELINE_METHOD
from nrmap.records import Record

SPARSITIES = ("kmap_sparsity", "hmap_sparsity")
ENTROPIES = ("kmap_map_entropy", "hmap_map_entropy")
_KINDS = ("kmap", "hmap", "kl", "margin_drop")
_ALL_SPARSITIES = (*(f"{kind}_sparsity" for kind in _KINDS), "flip_pair_rate", "tie_pair_rate")
_OTHER_MEASURES = tuple(
    f"{kind}_{measure}" for measure in ("effective_pixels", "map_entropy", "relative_map_entropy") for kind in _KINDS
)
_RETURN_METRICS = ("return_mean", "return_std", "flip_rate", "certified_rate")

# How an episode was played: the attack, its radius, and over how many episodes.
_Condition = tuple[str, float | None, int | None]


def table1(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Table 1 of the paper for every game, seed and set of states: S(K) and S(H) of every method."""
    title = "Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)"
    return paper_table(records, SPARSITIES, name="table1", title=title, reference=reference)


def entropy_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Table 2 of the UAI 2021 paper in the same shape: the entropy of KMAP and HMAP."""
    title = "Entropy of KMAP and HMAP (table 2 of UAI 2021)"
    return paper_table(records, ENTROPIES, name="table2", title=title, reference=reference)


def paper_table(
    records: Sequence[Record], metrics: Sequence[str], *, name: str, title: str, reference: Collection[str] = ()
) -> Table:
    """Rows: games × states × N × seeds. Columns: each metric of each method, the paper's number beside it.

    A metric that depends on the temperature is taken at `headline_temperature`.
    """
    temperature = headline_temperature(records)
    chosen = [r for r in _of_maps(records) if r.metric in metrics and r.temperature in (None, temperature)]
    columns: list[Column] = []
    rows = Rows("game", "policies", "states", "N", "T")
    for metric in metrics:
        heading = metric_name(metric)
        for method in sorted({record.method for record in chosen}, key=method_rank):
            mine = [record for record in chosen if (record.metric, record.method) == (metric, method)]
            column = _measured(metric, f"{metric} {method}", method_label(method), group=heading.title)
            paper = Column(f"{column.key} paper", "paper", heading.title, latex_group=heading.latex, digits=0)
            columns.append(column)
            if any(paper_number(record.game, base_method(method), metric) for record in mine):
                columns.append(paper)
            for record in mine:
                key = (*place_of(record, reference), record.states_from, record.num_states, temperature)
                rows.put(key, record.seed, column.key, cell_of(record))
                rows.put(key, record.seed, paper.key, _paper_cell(record))
    return rows.table(name, title, columns, _interval_notes(chosen))


def sparsity_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """S of every kind of map, a row for each policy, set of states and temperature."""
    return _map_table(records, _ALL_SPARSITIES, "sparsity", "Sparsity of all kinds of maps", reference)


def measure_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Effective pixels and entropies of every kind of map, in the same rows."""
    return _map_table(
        records, _OTHER_MEASURES, "measures", "Effective pixels and entropy of all kinds of maps", reference
    )


def _map_table(
    records: Sequence[Record], metrics: Sequence[str], name: str, title: str, reference: Collection[str]
) -> Table:
    chosen = [record for record in _of_maps(records) if record.metric in metrics]
    columns: list[Column] = []
    for metric in metrics:
        mine = [record for record in chosen if record.metric == metric]
        if mine:
            heading = metric_name(metric)
            columns.append(_measured(metric, metric, heading.title))
            if any(paper_number(record.game, base_method(record.method), metric) for record in mine):
                columns.append(
                    Column(f"{metric} paper", f"{heading.title} paper", latex=f"{heading.latex} paper", digits=0)
                )
    temperatures: dict[tuple[object, ...], set[float | None]] = defaultdict(set)
    for record in chosen:
        temperatures[_maps_of(record)].add(record.temperature)
    rows = Rows("game", "policies", "states", "N", "T", "method")
    for record in chosen:
        # What does not depend on T stands in the row of every T; without any, in a row of its own.
        own = {record.temperature} if record.temperature is not None else temperatures[_maps_of(record)] - {None}
        for temperature in own or {None}:
            key = (*place_of(record, reference), record.states_from, record.num_states, temperature, record.method)
            rows.put(key, record.seed, record.metric, cell_of(record))
            rows.put(key, record.seed, f"{record.metric} paper", _paper_cell(record))
    return rows.table(name, title, columns, _interval_notes(chosen))


def returns_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Returns, clean and under every attack, of policies, players that do not look, and published agents."""
    chosen = [record for record in records if record.metric in _RETURN_METRICS and record.attack is not None]
    conditions = sorted({_condition(record) for record in chosen}, key=_strength)
    columns: list[Column] = []
    for condition in conditions:
        measured = {record.metric for record in chosen if _condition(record) == condition}
        group = f"{attack_label(*condition[:2])} ({condition[2]} episodes)"
        columns += [
            _measured(metric, _return_key(metric, condition), metric_name(metric).title, group=group)
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
            rows.put(key, None, _return_key(one.metric, fitting[0]), Cell(one.printed))
            if one.agent not in sources[one.source]:
                sources[one.source].append(one.agent)
    notes = [f"Published {', '.join(agents)}: {source}." for source, agents in sources.items()]
    return rows.table("returns", "Returns of whole greedy episodes", columns, [*_interval_notes(chosen), *notes])


def action_table(records: Sequence[Record], game: str, *, reference: Collection[str] = ()) -> Table:
    """How often each action is taken in clean episodes of one game."""
    chosen = [r for r in records if (r.game, r.metric, r.attack) == (game, "action_share", "clean")]
    actions = list(dict.fromkeys(record.item or "" for record in chosen))
    others = "all but the commonest"
    columns = [*(_measured("action_share", action, action) for action in actions), Column(others, others, digits=4)]
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
    return rows.table(f"actions-{game}", title, columns, _interval_notes(chosen))


def q_gap_table(records: Sequence[Record], *, reference: Collection[str] = ()) -> Table:
    """Quantiles over states of the lead of the greedy action."""
    chosen = [record for record in records if record.metric == "q_gap_quantile"]
    quantiles = sorted({record.item or "" for record in chosen}, key=float)
    columns = [_measured("q_gap_quantile", item, f"{float(item):.0%}") for item in quantiles]
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
    return rows.table("others", "Other measures", columns, _interval_notes(chosen))


def print_records(records: Sequence[Record], console: Console | None = None) -> None:
    """Print what was measured: returns, then every measure of the maps."""
    for table in (returns_table(records), sparsity_table(records), measure_table(records), other_table(records)):
        if table.rows:
            print_table(table, console)


def headline_temperature(records: Iterable[Record]) -> float | None:
    """The temperature at which most maps were measured, among equals the one nearest to 1; None without any."""
    counts = Counter(r.temperature for r in records if r.metric == "hmap_sparsity" and r.temperature and r.item is None)
    return max(counts, key=lambda t: (counts[t], -abs(math.log(t)), t), default=None)


def _of_maps(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.states_from is not None and record.item is None]


def _maps_of(record: Record) -> tuple[object, ...]:
    return record.game, record.policy_sha256, record.method, record.seed, record.states_from, record.num_states


def _measured(metric: str, key: str, title: str, *, group: str = "") -> Column:
    name = metric_name(metric)
    latex, latex_group = (name.latex if text == name.title else None for text in (title, group))
    return Column(key, title, group, latex, latex_group, digits=name.digits, measured=True)


def _paper_cell(record: Record) -> Cell:
    published = paper_number(record.game, base_method(record.method), record.metric)
    return Cell(published.printed if published else None)


def _condition(record: Record) -> _Condition:
    if record.method == BASELINE_METHOD:
        return "clean", None, record.episodes
    return record.attack or "clean", record.attack_epsilon, record.episodes


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


def _interval_notes(records: Iterable[Record]) -> tuple[str, ...]:
    kinds = sorted({record.interval for record in records if record.interval and record.low is not None})
    return (f"Square brackets: 95% intervals ({'; '.join(kinds)}).",) if kinds else ()
