"""The policies with their results, and the commands for the missing ones."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analyze.report.formats import Cell, Column, Table
from analyze.report.names import PolicyName, name_of
from analyze.report.results import Found
from nrmap.support.layout import POLICY_FILE

COMPARED = ("ddqn", "sa_ddqn")
YES, NO = "yes", "missing"


@dataclass(frozen=True)
class Inventory:
    """One policy and the results of it that are there."""

    game: str
    name: PolicyName
    reference: bool
    policy: str | None  # its file, relative to the outputs; None without one
    options: tuple[str, ...] | None  # of its training; None without a training here
    curves: bool
    evaluation: bool
    own: bool
    pool: bool

    @property
    def label(self) -> str:
        """`Freeway, DDQN (vanilla), seed 0`."""
        return f"{self.game}, {self.name.group.title}, seed {self.name.seed}"


def inventory(found: Found) -> list[Inventory]:
    """Every policy that was trained, begun or measured, in order."""
    entries = []
    measured = {record.policy_sha256: record for record in found.records if record.policy_sha256}
    trained = {training.sha256 for training in found.trainings}
    for training in found.trainings:
        path = f"{training.folder}/{POLICY_FILE}" if training.sha256 else None
        place = (training.game, training.name, training.reference, path, training.options, training.curves is not None)
        entries.append(Inventory(*place, *_results(found, training.sha256)))
    for sha256, record in measured.items():
        if sha256 not in trained and not record.is_null_network:
            name = replace(name_of(record), protocol=None)
            entries.append(Inventory(record.game, name, False, None, None, False, *_results(found, sha256)))
    return sorted(entries, key=lambda entry: (entry.game, not entry.reference, entry.name.rank))


def _results(found: Found, sha256: str | None) -> tuple[bool, bool, bool]:
    mine = [record for record in found.records if sha256 is not None and record.policy_sha256 == sha256]
    states = {record.states_from for record in mine}
    return any(record.metric == "return_mean" for record in mine), "own" in states, "pool" in states


def inventory_table(entries: Sequence[Inventory]) -> Table:
    """The inventory as a table."""
    names = ("game", "policies", "method", "seed", "policy", "learning curve", "returns", "maps, own", "maps, pool")
    columns = tuple(Column(name, name.capitalize()) for name in names)
    rows = tuple(
        (
            Cell(entry.game),
            Cell("reference" if entry.reference else "trained here"),
            Cell(entry.name.group.title),
            Cell(entry.name.seed),
            Cell(YES if entry.policy else "elsewhere" if entry.options is None else "not finished"),
            *(Cell(YES if there else NO) for there in (entry.curves, entry.evaluation, entry.own, entry.pool)),
        )
        for entry in entries
    )
    return Table("inventory", "What is here", columns, rows)


def missing(found: Found, entries: Sequence[Inventory]) -> list[str]:
    """Every missing result in a sentence, with the command that makes it."""
    texts = []
    for entry in entries:
        if entry.policy is None:
            if entry.options is not None:
                texts.append(
                    f"{entry.label}: training is not finished. {_train(found, entry)} continues from its checkpoint."
                )
            continue
        lacking = {"returns": entry.evaluation, "maps on its own states": entry.own}
        if not all(lacking.values()):
            what = " and ".join(name for name, there in lacking.items() if not there)
            texts.append(f"{entry.label}: no {what}. {_analyze(found, entry)} measures them.")
        pool = _pool(found, entry, entries)
        if not entry.pool and pool is not None:
            command = _analyze(found, entry, "states_from=pool", f"pool=[{','.join(pool)}]")
            texts.append(f"{entry.label}: no maps on shared states. {command} makes them.")
    trained = [entry for entry in entries if not entry.reference and entry.options is not None]
    for game, seed in sorted({(entry.game, entry.name.seed) for entry in trained}):
        same = [entry for entry in trained if (entry.game, entry.name.seed) == (game, seed)]
        for method in sorted(set(COMPARED) - {entry.name.method for entry in same}):
            title = PolicyName(method).title
            texts.append(f"{game}: no {title} of seed {seed}. {_train(found, same[0], method)} trains it.")
    for game in found.games:
        here = next((entry for entry in entries if entry.game == game and entry.policy is not None), None)
        if here and not any(record.game == game and record.is_baseline for record in found.records):
            texts.append(f"{game}: no returns of constant actions. {_analyze(found, here)} measures them too.")
    return texts


def _train(found: Found, entry: Inventory, method: str | None = None) -> str:
    """The command of the training of `one`, or of another `method` with the same game, seed and scale."""
    options = [option for option in entry.options or () if method is None or not option.startswith("method")]
    if not options:
        options = [f"env={entry.game}", f"seed={entry.name.seed}", *([] if method else [f"method={entry.name.method}"])]
    options += [] if method is None else [f"method={method}"]
    known = "" if entry.options else ", with the other options that it was started with,"
    return f"{_command(found, 'train', options)}{known}"


def _analyze(found: Found, entry: Inventory, *more: str) -> str:
    """The command that measures `one`: a reference policy as it was published, another at the scale of its training."""
    options = [f"env={entry.game}", f"policy={found.outputs}/{entry.policy}"]
    options += ["evaluation=paper"] if entry.reference else [o for o in entry.options or () if o.startswith("scale=")]
    return _command(found, "analyze", [*options, *more])


def _pool(found: Found, entry: Inventory, entries: Sequence[Inventory]) -> list[str] | None:
    """The policies whose states `one` is mapped on: of its game, seed and place; None if one is missing."""
    same = [
        other
        for other in entries
        if (other.game, other.reference, other.name.seed) == (entry.game, entry.reference, entry.name.seed)
    ]
    files = [next((o.policy for o in same if o.name.method == method and o.policy), None) for method in COMPARED]
    return None if None in files else [f"{found.outputs}/{file}" for file in files]


def _command(found: Found, module: str, options: Sequence[str]) -> str:
    outputs = [] if str(found.outputs) == "outputs" else [f"outputs={found.outputs}"]
    return f"`{shlex.join(['python', '-m', module, *options, *outputs])}`"
