"""What is there and what is not, policy by policy, and the commands that make the rest."""

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
    policy: str | None  # its file, relative to the outputs; None where it is not there
    started: bool
    curves: bool
    evaluation: bool
    own: bool
    pool: bool


def inventory(found: Found) -> list[Inventory]:
    """Every policy that was trained, begun or measured, in order."""
    entries = []
    measured = {record.policy_sha256: record for record in found.records if record.policy_sha256}
    trained = {training.sha256 for training in found.trainings}
    for training in found.trainings:
        path = f"{training.folder}/{POLICY_FILE}" if training.sha256 else None
        results = _results(found, training.sha256)
        place = (training.game, training.name, training.reference)
        entries.append(Inventory(*place, path, True, training.curves is not None, *results))
    for sha256, record in measured.items():
        if sha256 not in trained and not record.is_null_network:
            name = replace(name_of(record), protocol=None)
            entries.append(Inventory(record.game, name, False, None, False, False, *_results(found, sha256)))
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
            Cell(YES if one.policy else "not finished" if one.started else "elsewhere"),
            *(Cell(YES if there else NO) for there in (one.curves, one.evaluation, one.own, one.pool)),
        )
        for one in entries
    )
    return Table("inventory", "What is here", columns, rows)


def missing(found: Found, entries: Sequence[Inventory]) -> list[str]:
    """What is missing in plain words, each with the command that makes it."""
    texts = []
    for one in entries:
        label = f"{one.game}, {one.name.group.title}, seed {one.name.seed}"
        choice = f"env={one.game} method={one.name.method} seed={one.name.seed}"
        if one.policy is None and one.started:
            texts.append(f"{label}: training is not finished. `python -m train {choice}` goes on from its checkpoint.")
        if one.policy is None:
            continue
        command = f"python -m analyze policy={found.outputs.name}/{one.policy}"
        if not (one.evaluation and one.own):
            what = " and ".join(
                name for name, there in (("returns", one.evaluation), ("maps on its own states", one.own)) if not there
            )
            texts.append(f"{label}: no {what}. `{command}` measures them.")
        if not one.pool:
            command = "make maps" if one.reference else f"python -m analyze {choice} states_from=pool"
            texts.append(
                f"{label}: no maps on shared states. `{command}` makes them, with the scale it was trained at."
            )
    for game in found.games:
        there = {(one.name.method, one.name.seed) for one in entries if one.game == game and not one.reference}
        for seed in sorted({seed for _, seed in there if seed is not None}):
            for method in COMPARED:
                if (method, seed) not in there:
                    command = f"python -m train env={game} method={method} seed={seed}"
                    texts.append(f"{game}: no {PolicyName(method).title} of seed {seed}. `{command}` trains it.")
        if entries and not any(record.game == game and record.is_baseline for record in found.records):
            texts.append(f"{game}: no returns of constant actions. They come with any `python -m analyze env={game}`.")
    return texts
