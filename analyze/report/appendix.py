"""The page's appendix: the settings of every result, every measured value, and provenance."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from analyze.report.formats import Cell, Column, Table, counted
from analyze.report.names import condition_of, name_of, policy_order, states_of
from analyze.report.results import Found, Result, Training, flattened
from nrmap.support.records import Record

# A heading, and under it titles with their tables of two columns.
Entry = tuple[str, Mapping[str, str]]
Group = tuple[str, list[Entry]]


def settings_groups(found: Found) -> list[Group]:
    """The settings and inputs of every training, evaluation and set of maps."""
    trainings: list[Entry] = [(_training_title(training), _training_values(training)) for training in found.trainings]
    return [*_group("training", trainings), *_by_kind(found, _result_settings)]


def value_groups(found: Found) -> list[Group]:
    """Every record of every file, one line for each list of values."""
    return list(_by_kind(found, _result_values))


def _by_kind(found: Found, entry: Callable[[Result], Entry]) -> Iterator[Group]:
    """The `entry` of every result, evaluations apart from maps, in the order of games, methods and seeds."""
    ordered = sorted(found.results, key=_order)
    yield from _group("evaluation", [entry(result) for result in ordered if not result.is_of_maps])
    yield from _group("set of maps", [entry(result) for result in ordered if result.is_of_maps], "sets of maps")


def _group(name: str, entries: list[Entry], plural: str | None = None) -> list[Group]:
    return [(counted(len(entries), name, plural), entries)] if entries else []


def _order(result: Result) -> tuple[Any, ...]:
    first = result.first
    states = states_of(first).rank, first.num_states or 0
    return first.game, *policy_order(first), result.reference, *states, result.folder


def _result_settings(result: Result) -> Entry:
    return _result_title(result), {
        **flattened(result.settings),
        **flattened(result.inputs, "inputs."),
        "folder": result.folder,
    }


def _training_title(training: Training) -> str:
    state = "" if training.card else ", not finished"
    return f"{training.game}, {training.name.group.title}, seed {training.seed}: training{state}"


def _training_values(training: Training) -> dict[str, str]:
    values = {}
    if training.card:
        card = training.card
        values = {
            "agent steps": f"{card.agent_steps:,}",
            **{f"results.{key}": value for key, value in flattened(card.results).items()},
            "identity": card.identity,
            "policy sha256": training.sha256 or "",
            "parent sha256": card.parent_sha256 or "none, from random weights",
        }
    elif training.curves and training.curves["rows"]:
        values["agent steps so far"] = f"{training.curves['rows'][-1]['agent_step']:,}"
    return {**values, "folder": training.folder, **flattened(training.settings)}


def _result_title(result: Result) -> str:
    first = result.first
    name = "baselines" if first.is_baseline else name_of(first).group.title
    number = f", draw {first.draw}" if first.is_null_network else "" if first.seed is None else f", seed {first.seed}"
    measured = f"maps on {states_of(first).label}" if result.is_of_maps else "evaluation"
    return f"{first.game}, {name}{number}: {measured}{' (reference)' if result.reference else ''}"


def _result_values(result: Result) -> Entry:
    lines: dict[str, list[str]] = {}
    for record in result.records:
        lines.setdefault(_line_name(record), []).append(_value_text(record))
    title = f"{_result_title(result)}, {counted(len(result.records), 'value')}"
    return title, {name: "; ".join(values) for name, values in lines.items()}


def _line_name(record: Record) -> str:
    parts = [record.metric_key]
    if record.is_baseline:
        parts.append(name_of(record).title)
    elif record.attack is not None:
        parts.append(condition_of(record).label)
    if record.states_from is not None:
        parts.append(states_of(record).label)
    if record.num_states is not None:
        parts.append(f"N = {record.num_states}")
    if record.temperature is not None:
        parts.append(f"T = {record.temperature:g}")
    if record.episodes is not None:
        parts.append(counted(record.episodes, "episode"))
    return ", ".join(parts)


def _value_text(record: Record) -> str:
    text = "undefined" if record.value is None else _number(record.value)
    parts = (record.episode, record.action, record.quantile, record.direction)
    text = "".join(f"{part}: " for part in parts if part is not None) + text
    if record.low is not None and record.high is not None:
        text += f" [{_number(record.low)}, {_number(record.high)}]"
    return f"{text} ({record.note})" if record.note else text


def _number(value: float) -> str:
    """Nine digits, more than any of these numbers is accurate to."""
    return f"{value:.9g}"


def provenance_table(found: Found) -> Table:
    """The commits, versions and machines behind the results, a row for each with its number of files."""
    everything: Sequence[Mapping[str, Any]] = [
        *(result.provenance for result in found.results),
        *(training.card.provenance for training in found.trainings if training.card),
    ]
    counts = Counter(json.dumps(each, sort_keys=True) for each in everything)
    rows = [(count, flattened(json.loads(key))) for key, count in counts.items()]
    keys = list(dict.fromkeys(key for _, values in rows for key in values))
    return Table(
        "provenance",
        "Commits, versions and machines",
        (Column("files", "Files", digits=0), *(Column(key, key.removeprefix("versions.")) for key in keys)),
        tuple((Cell(count), *(Cell(values.get(key)) for key in keys)) for count, values in rows),
        ("A commit that ends in + had uncommitted changes.",),
    )
