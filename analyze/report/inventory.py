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
    for one in found.trainings:
        path = f"{one.folder}/{POLICY_FILE}" if one.sha256 else None
        place = (one.game, one.name, one.reference, path, one.options, one.curves is not None)
        entries.append(Inventory(*place, *_results(found, one.sha256)))
    for sha256, record in measured.items():
        if sha256 not in trained and not record.is_null_network:
            name = replace(name_of(record), protocol=None)
            entries.append(Inventory(record.game, name, False, None, None, False, *_results(found, sha256)))
    return sorted(entries, key=lambda one: (one.game, not one.reference, one.name.rank))


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
            Cell(one.game),
            Cell("reference" if one.reference else "trained here"),
            Cell(one.name.group.title),
            Cell(one.name.seed),
            Cell(YES if one.policy else "elsewhere" if one.options is None else "not finished"),
            *(Cell(YES if there else NO) for there in (one.curves, one.evaluation, one.own, one.pool)),
        )
        for one in entries
    )
    return Table("inventory", "What is here", columns, rows)


def missing(found: Found, entries: Sequence[Inventory]) -> list[str]:
    """Every missing result in a sentence, with the command that makes it."""
    texts = []
    for one in entries:
        if one.policy is None:
            if one.options is not None:
                texts.append(
                    f"{one.label}: training is not finished. {_train(found, one)} continues from its checkpoint."
                )
            continue
        lacking = {"returns": one.evaluation, "maps on its own states": one.own}
        if not all(lacking.values()):
            what = " and ".join(name for name, there in lacking.items() if not there)
            texts.append(f"{one.label}: no {what}. {_analyze(found, one)} measures them.")
        pool = _pool(found, one, entries)
        if not one.pool and pool is not None:
            command = _analyze(found, one, "states_from=pool", f"pool=[{','.join(pool)}]")
            texts.append(f"{one.label}: no maps on shared states. {command} makes them.")
    trained = [one for one in entries if not one.reference and one.options is not None]
    for game, seed in sorted({(one.game, one.name.seed) for one in trained}):
        same = [one for one in trained if (one.game, one.name.seed) == (game, seed)]
        for method in sorted(set(COMPARED) - {one.name.method for one in same}):
            title = PolicyName(method).title
            texts.append(f"{game}: no {title} of seed {seed}. {_train(found, same[0], method)} trains it.")
    for game in found.games:
        here = next((one for one in entries if one.game == game and one.policy is not None), None)
        if here and not any(record.game == game and record.is_baseline for record in found.records):
            texts.append(f"{game}: no returns of constant actions. {_analyze(found, here)} measures them too.")
    return texts


def _train(found: Found, one: Inventory, method: str | None = None) -> str:
    """The command of the training of `one`, or of another `method` with the same game, seed and scale."""
    options = [option for option in one.options or () if method is None or not option.startswith("method")]
    if not options:
        options = [f"env={one.game}", f"seed={one.name.seed}", *([] if method else [f"method={one.name.method}"])]
    options += [] if method is None else [f"method={method}"]
    known = "" if one.options else ", with the other options that it was started with,"
    return f"{_command(found, 'train', options)}{known}"


def _analyze(found: Found, one: Inventory, *more: str) -> str:
    """The command that measures `one`: a reference policy as it was published, another at the scale of its training."""
    options = [f"env={one.game}", f"policy={found.outputs}/{one.policy}"]
    options += ["evaluation=paper"] if one.reference else [o for o in one.options or () if o.startswith("scale=")]
    return _command(found, "analyze", [*options, *more])


def _pool(found: Found, one: Inventory, entries: Sequence[Inventory]) -> list[str] | None:
    """The policies whose states `one` is mapped on: of its game, seed and place; None if one is missing."""
    same = [
        other
        for other in entries
        if (other.game, other.reference, other.name.seed) == (one.game, one.reference, one.name.seed)
    ]
    files = [next((o.policy for o in same if o.name.method == method and o.policy), None) for method in COMPARED]
    return None if None in files else [f"{found.outputs}/{file}" for file in files]


def _command(found: Found, module: str, options: Sequence[str]) -> str:
    outputs = [] if str(found.outputs) == "outputs" else [f"outputs={found.outputs}"]
    return f"`{shlex.join(['python', '-m', module, *options, *outputs])}`"
