"""The policies with their results, and the commands for the missing ones."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from analyze.report.formats import Cell, Column, Table
from analyze.report.names import PolicyName, grouped, name_of
from analyze.report.results import Found
from nrmap.support.layout import POLICY_FILE

COMPARED = ("ddqn", "sa_ddqn")


@dataclass(frozen=True)
class Entry:
    """One policy and the kinds of results that it has."""

    game: str
    name: PolicyName
    reference: bool
    policy: str | None  # its file, relative to the outputs; None without one
    options: tuple[str, ...] | None  # of its training; None without a training here
    has: Mapping[str, bool]  # by column of the inventory's table

    @property
    def place(self) -> tuple[str, bool, int | None]:
        """The properties that policies share if they are compared: game, place and seed."""
        return self.game, self.reference, self.name.seed

    @property
    def analysis(self) -> tuple[str, ...]:
        """The options of its analysis: that of the published ones, or the scale of its training."""
        scale = tuple(option for option in self.options or () if option.startswith("scale="))
        return ("evaluation=paper",) if self.reference else scale


def inventory(found: Found) -> list[Entry]:
    """Every policy that was trained, begun or measured, in order."""
    measured = {record.policy_sha256: record for record in found.records if record.policy_sha256 and record.is_trained}

    def has(sha256: str | None, curves: bool) -> dict[str, bool]:
        mine = [record for record in found.records if sha256 is not None and record.policy_sha256 == sha256]
        states = {record.states_from for record in mine}
        returns = any(record.metric == "return_mean" for record in mine)
        return {
            "learning curve": curves,
            "returns": returns,
            "maps, own": "own" in states,
            "maps, pool": "pool" in states,
        }

    entries = []
    for training in found.trainings:
        path = f"{training.folder}/{POLICY_FILE}" if training.sha256 else None
        results = has(training.sha256, training.curves is not None)
        entries.append(Entry(training.game, training.name, training.reference, path, training.options, results))
    for sha256 in measured.keys() - {training.sha256 for training in found.trainings}:
        record = measured[sha256]
        name = replace(name_of(record), protocol=None)
        entries.append(Entry(record.game, name, False, None, None, has(sha256, curves=False)))
    return sorted(entries, key=lambda entry: (entry.game, not entry.reference, entry.name.rank))


def inventory_table(entries: Sequence[Entry]) -> Table:
    """The inventory as a table."""
    kinds = list(entries[0].has) if entries else []
    names = ("game", "policies", "method", "seed", "policy", *kinds)
    columns = tuple(Column(name, name.capitalize()) for name in names)
    rows = []
    for entry in entries:
        place = "reference" if entry.reference else "trained here"
        policy = "yes" if entry.policy else "elsewhere" if entry.options is None else "not finished"
        there = ["yes" if entry.has[kind] else "missing" for kind in kinds]
        texts = (entry.game, place, entry.name.group.title, entry.name.seed, policy, *there)
        rows.append(tuple(Cell(text) for text in texts))
    return Table("inventory", "What is here", columns, tuple(rows))


def missing(found: Found, entries: Sequence[Entry]) -> list[str]:
    """A line for each game and kind of missing result: the policies that lack it, and the commands that make it."""
    lines = []
    for game in found.games:
        mine = [entry for entry in entries if entry.game == game]
        for what, lacking in {
            "trainings that are not finished": _unfinished(found, mine),
            "no returns": _unmeasured(found, mine, "returns"),
            "no maps on their own states": _unmeasured(found, mine, "maps, own"),
            "no maps on shared states": _unpooled(found, mine),
            "not trained": _untrained(found, mine),
        }.items():
            commands = dict(lacking)
            if commands:
                lines.append(f"{game}, {what}: {', '.join(commands.values())}. {' '.join(f'`{c}`' for c in commands)}")
        here = [entry for entry in mine if entry.policy is not None]
        if here and not any(record.game == game and record.is_baseline for record in found.records):
            lines.append(
                f"{game}, no returns of constant actions: measured with any policy. `{_analyze(found, here[:1])}`"
            )
    return lines


# Commands with the labels of the policies that they are for.
_Lacking = Iterator[tuple[str, str]]


def _unfinished(found: Found, entries: Sequence[Entry]) -> _Lacking:
    for entry in entries:
        if entry.policy is None and entry.options is not None:
            known = "" if entry.options else " (add the other options that it was started with)"
            yield _train(found, entry), entry.name.label + known


def _unmeasured(found: Found, entries: Sequence[Entry], kind: str) -> _Lacking:
    lacking = [entry for entry in entries if entry.policy is not None and not entry.has[kind]]
    for same in grouped(lacking, lambda entry: entry.analysis).values():
        yield _analyze(found, same), ", ".join(entry.name.label for entry in same)


def _unpooled(found: Found, entries: Sequence[Entry]) -> _Lacking:
    """A pool has the states of the compared methods' policies of one seed; none where one of them is missing."""
    for same in grouped(entries, lambda entry: (*entry.place[:2], entry.name.seed or 0)).values():
        files = [next((e.policy for e in same if e.name.method == method and e.policy), None) for method in COMPARED]
        pool = f"pool=[{','.join(f'{found.outputs}/{file}' for file in files)}]"
        lacking = [entry for entry in same if entry.policy is not None and not entry.has["maps, pool"]]
        for alike in grouped(lacking if None not in files else [], lambda entry: entry.analysis).values():
            yield _analyze(found, alike, "states_from=pool", pool), ", ".join(entry.name.label for entry in alike)


def _untrained(found: Found, entries: Sequence[Entry]) -> _Lacking:
    trained = [entry for entry in entries if not entry.reference and entry.options is not None]
    for seed, same in grouped(trained, lambda entry: entry.name.seed or 0).items():
        for method in sorted(set(COMPARED) - {entry.name.method for entry in same}):
            yield _train(found, same[0], method), PolicyName(method, seed=seed).label


def _train(found: Found, entry: Entry, method: str | None = None) -> str:
    """The command of the training of `entry`, or of another `method` with the same game, seed and scale."""
    options = [option for option in entry.options or () if method is None or not option.startswith("method")]
    if not options:
        options = [f"env={entry.game}", f"seed={entry.name.seed}", *([] if method else [f"method={entry.name.method}"])]
    return _command(found, "train", [*options, *([] if method is None else [f"method={method}"])])


def _analyze(found: Found, entries: Sequence[Entry], *more: str) -> str:
    """The command that measures `entries`, which share the options of their analyses."""
    policies = ",".join(f"{found.outputs}/{entry.policy}" for entry in entries)
    sweep = ["-m"] if len(entries) > 1 else []
    options = [f"env={entries[0].game}", f"policy={policies}", *entries[0].analysis, *more]
    return _command(found, "analyze", [*sweep, *options])


def _command(found: Found, module: str, options: Sequence[str]) -> str:
    outputs = [] if str(found.outputs) == "outputs" else [f"outputs={found.outputs}"]
    return shlex.join(["python", "-m", module, *options, *outputs])
