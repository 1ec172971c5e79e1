"""Everything behind the tables: the settings that made each result, every single value, provenance."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from analyze.report.html import details, items, key_values
from analyze.report.labels import Result, Training, flattened
from analyze.report.load import Found
from analyze.report.names import attack_label, is_control, method_label, policy_order, states_label
from nrmap.support.records import Record


def settings_section(found: Found) -> str:
    """For every training, evaluation and analysis its settings and inputs, each to be opened."""
    trainings = [details(_training_title(one), key_values(_training_values(one))) for one in found.trainings]
    return "\n".join([_group("trainings", trainings), *_by_kind(found, _result_settings)])


def _by_kind(found: Found, write: Callable[[Result], str]) -> Iterator[str]:
    """What `write` makes of every result, evaluations and maps apart, in the order of games, methods and seeds."""
    ordered = sorted((result for result in found.results if result.records), key=_order)
    yield _group("evaluations", [write(result) for result in ordered if result.states is None])
    yield _group("sets of maps", [write(result) for result in ordered if result.states is not None])


def _group(name: str, blocks: Sequence[str]) -> str:
    return details(f"{len(blocks)} {name}", "\n".join(blocks)) if blocks else ""


def _order(result: Result) -> tuple[Any, ...]:
    first = result.records[0]
    return first.game, *policy_order(first), result.reference, result.states or ("", 0), result.folder


def _result_settings(result: Result) -> str:
    values = {**flattened(result.settings), **flattened(result.inputs, "inputs."), "folder": result.folder}
    return details(_result_title(result), key_values(values))


def _training_title(training: Training) -> str:
    state = "" if training.card else ", not finished"
    return f"{training.game}, {method_label(training.method)}, seed {training.seed}: training{state}"


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
    first = result.records[0]
    seed = "" if first.seed is None else f", {'draw' if is_control(first.method) else 'seed'} {first.seed}"
    labels = [record.states_from for record in result.records if record.states_from]
    what = f"maps on {states_label(labels[0])}" if labels else "evaluation"
    return f"{first.game}, {method_label(first.method)}{seed}: {what}{' (reference)' if result.reference else ''}"


def values_section(found: Found) -> str:
    """Every record of every file, one line for each list of values."""
    return "\n".join(_by_kind(found, _result_values))


def _result_values(result: Result) -> str:
    lines = "\n".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(values)}</td></tr>'
        for name, values in _value_lines(result.records)
    )
    table = f'<div class="scroll"><table class="pairs"><tbody>\n{lines}\n</tbody></table></div>'
    return details(f"{_result_title(result)}, {len(result.records)} values", table)


def _value_lines(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    """What was measured and its values, those of a list on one line."""
    lines: dict[str, list[str]] = {}
    for record in records:
        lines.setdefault(_line_name(record), []).append(_value_text(record))
    for name, values in lines.items():
        yield name, "; ".join(values)


def _line_name(record: Record) -> str:
    parts = [record.metric]
    if record.attack is not None:
        parts.append(attack_label(record.attack, record.attack_epsilon))
    if record.states_from is not None:
        parts.append(states_label(record.states_from))
    if record.num_states is not None:
        parts.append(f"N = {record.num_states}")
    if record.temperature is not None:
        parts.append(f"T = {record.temperature:g}")
    if record.episodes is not None:
        parts.append(f"{record.episodes} episodes")
    return ", ".join(parts)


def _value_text(record: Record) -> str:
    text = "undefined" if record.value is None else value_text(record.value)
    if record.item is not None and record.item != "prefix":
        text = f"{record.item}: {text}"
    if record.low is not None and record.high is not None:
        text += f" [{value_text(record.low)}, {value_text(record.high)}]"
    return f"{text} ({record.note})" if record.note else text


def value_text(value: float) -> str:
    """Nine digits, which is more than any of these numbers is good for."""
    return f"{value:.9g}"


def provenance_section(found: Found) -> str:
    """The commits, versions and machines that the results came from, each once, with how many results."""
    seen: dict[str, tuple[Mapping[str, Any], int]] = {}
    everything = [result.provenance for result in found.results]
    everything += [training.card.provenance for training in found.trainings if training.card]
    for one in everything:
        key = json.dumps(one, sort_keys=True)
        seen[key] = one, seen[key][1] + 1 if key in seen else 1
    blocks = []
    for one, count in seen.values():
        commit = one.get("commit") or "not known"
        blocks.append(
            f"<h3>{count} {'file' if count == 1 else 'files'} of commit <code>{escape(str(commit))}</code></h3>"
        )
        blocks.append(key_values(flattened(one)))
    changed = any(str(one.get("commit", "")).endswith("+") for one, _ in seen.values())
    notes = ["A commit with + behind it had uncommitted changes."] if changed else []
    return "\n".join(blocks) + items(notes)
