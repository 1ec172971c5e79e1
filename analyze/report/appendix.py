"""The page's appendix: the settings of every result, every measured value, and provenance."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from analyze.report.formats import Cell, Column, Table, counted
from analyze.report.names import condition_of, gathered, name_of, states_of
from analyze.report.results import Found, FoundTraining, Result, flattened
from nrmap.support.records import Record

# A title, and under it a table of two columns.
Entry = tuple[str, Mapping[str, str]]


def appendix(found: Found) -> list[tuple[str, Sequence[Entry]]]:
    """List the settings and values of all trainings, evaluations and sets of maps.

    There is a titled group for each of these three kinds that was found. Values that differ only in episode, action,
    quantile or direction share a line.
    """

    def key(result: Result) -> tuple[Any, ...]:
        first = result.first
        return first.game, name_of(first), result.reference, states_of(first), result.folder

    trainings = list(map(_of_training, found.trainings))
    results = sorted(found.results, key=key)
    played, mapped = ([_of_result(r) for r in results if r.is_of_maps is wanted] for wanted in (False, True))
    groups = (
        (counted(len(trainings), "training"), trainings),
        (counted(len(played), "evaluation"), played),
        (counted(len(mapped), "set of maps", "sets of maps"), mapped),
    )
    return [group for group in groups if group[1]]


def _of_result(result: Result) -> Entry:
    first = result.first
    name = "baselines" if first.is_baseline else name_of(first).group.title
    number = f", draw {first.draw}" if first.is_null_network else "" if first.seed is None else f", seed {first.seed}"
    measured = f"maps on {states_of(first).label}" if result.is_of_maps else "evaluation"
    title = f"{first.game}, {name}{number}: {measured}{' (reference)' if result.reference else ''}"
    settings = {**flattened(result.settings), **flattened(result.inputs, "inputs."), "folder": result.folder}
    lines = gathered(result.records, _line_name)
    values = {name: "; ".join(map(_value_text, records)) for name, records in lines.items()}
    return f"{title}, {counted(len(result.records), 'value')}", settings | values


def _of_training(training: FoundTraining) -> Entry:
    card, values = training.card, {}
    if card:
        values = {
            "agent steps": f"{card.agent_steps:,}",
            **{f"results.{key}": value for key, value in flattened(card.results).items()},
            "identity": card.identity,
            "policy sha256": training.sha256 or "",
            "parent sha256": card.parent_sha256 or "none, from random weights",
        }
    elif training.curves and training.curves["rows"]:
        values["agent steps so far"] = f"{training.curves['rows'][-1]['agent_step']:,}"
    title = f"{training.game}, {training.name.group.title}, seed {training.seed}: training"
    settings = {"folder": training.folder, **flattened(training.settings)}
    return f"{title}{'' if card else ', not finished'}", values | settings


def _line_name(record: Record) -> str:
    parts = {
        record.metric_key: True,
        name_of(record).title: record.is_baseline,
        condition_of(record).label: record.attack is not None and not record.is_baseline,
        states_of(record).label: record.states_from is not None,
        f"N = {record.num_states}": record.num_states is not None,
        f"T = {record.temperature or 0:g}": record.temperature is not None,
        counted(record.episodes or 0, "episode"): record.episodes is not None,
    }
    return ", ".join(part for part, applies in parts.items() if applies)


def _value_text(record: Record) -> str:
    """Format value, interval and note of a record; nine digits are more than any value is accurate to."""
    text = "undefined" if record.value is None else f"{record.value:.9g}"
    parts = (record.episode, record.action, record.quantile, record.direction)
    text = "".join(f"{part}: " for part in parts if part is not None) + text
    if record.low is not None and record.high is not None:
        text += f" [{record.low:.9g}, {record.high:.9g}]"
    return f"{text} ({record.note})" if record.note else text


def provenance_table(found: Found) -> Table:
    """Build the table of commits, versions and machines behind the results, with the number of files of each."""
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
