"""The missing results of the trainings that were found, and the commands that make them."""

import shlex
from collections.abc import Iterator, Sequence

from analyze.report.names import PolicyName, grouped
from analyze.report.pairing import BASE
from analyze.report.results import Found, FoundTraining
from nrmap.support.layout import POLICY_FILE
from nrmap.support.records import select

COMPARED = (BASE, "sa_ddqn")
# Commands with the labels of the policies that they are for.
_Lacking = Iterator[tuple[str, str]]


def missing(found: Found) -> list[str]:
    """List missing results, a Markdown line for each game and kind: policies that lack it, commands that make it."""
    measured = {(r.policy_sha256, r.states_from or r.metric) for r in found.records}
    lines = []
    for game, mine in grouped(found.trainings, lambda training: training.game).items():
        mine = sorted(mine, key=lambda training: (not training.reference, training.reference or "", training.name))
        finished = [training for training in mine if training.sha256]
        baselines = select(found.records, game=game, is_baseline=True)
        returns, own, pool = (
            [training for training in finished if (training.sha256, what) not in measured]
            for what in ("return_mean", "own", "pool")
        )
        for what, lacking in {
            "trainings that are not finished": _unfinished(found, mine),
            "no returns": _measured(found, returns),
            "no maps on their own states": _measured(found, own),
            "no maps on shared states": _pooled(found, finished, pool),
            "not trained": _untrained(found, mine),
            "no returns of constant actions": _measured(found, [] if baselines else finished[:1]),
        }.items():
            commands = dict(lacking)
            if commands:
                lines.append(f"{game}, {what}: {', '.join(commands.values())}. {' '.join(f'`{c}`' for c in commands)}")
    return lines


def _unfinished(found: Found, trainings: Sequence[FoundTraining]) -> _Lacking:
    for training in trainings:
        if training.sha256 is None:
            known = "" if training.options else " (add the other options that it was started with)"
            yield _train(found, training, training.method), training.name.label + known


def _measured(found: Found, trainings: Sequence[FoundTraining], *more: str) -> _Lacking:
    """Yield a command that analyses trainings, with the options `more`, and the labels of the policies.

    Trainings whose analyses have equal options share a command.
    """

    def analysis(training: FoundTraining) -> tuple[str, ...]:
        if not training.reference:
            return tuple(option for option in training.options if option.startswith("scale="))
        return "policies_from=reference", f"scale={training.reference}", "evaluation=paper", f"method={training.method}"

    for options, alike in grouped(trainings, analysis).items():
        seeds = ",".join(str(training.seed) for training in alike)
        policies = ",".join(f"{found.outputs}/{training.folder}/{POLICY_FILE}" for training in alike)
        which = f"seed={seeds}" if alike[0].reference else f"policy={policies}"
        sweep = ["-m"] if len(alike) > 1 else []
        command = _command(found, "analyze", *sweep, f"env={alike[0].game}", *options, which, *more)
        yield command, ", ".join(training.name.label for training in alike)


def _pooled(found: Found, trainings: Sequence[FoundTraining], lacking: Sequence[FoundTraining]) -> _Lacking:
    """Yield a command and labels for the trainings in `lacking`, which have no maps on pooled states yet.

    `trainings` are all finished ones of the game. The states of a pool come from one seed's policies of the `COMPARED`
    methods. A seed without a policy of each gets no command. A command names reference policies by method and seed,
    and policies trained here by file, those of the pool too.
    """
    published = []
    for same in grouped(trainings, lambda training: (training.reference or "", training.seed)).values():
        folders = {training.method: training.folder for training in reversed(same)}
        those = [training for training in same if training in lacking] if folders.keys() >= set(COMPARED) else []
        if same[0].reference:
            published += those
        elif those:
            files = ",".join(f"{found.outputs}/{folders[method]}/{POLICY_FILE}" for method in COMPARED)
            yield from _measured(found, those, "states_from=pool", f"pool=[{files}]")
    yield from _measured(found, published, "states_from=pool")


def _untrained(found: Found, trainings: Sequence[FoundTraining]) -> _Lacking:
    for seed, same in grouped((t for t in trainings if not t.reference), lambda training: training.seed).items():
        for method in sorted(set(COMPARED) - {training.method for training in same}):
            yield _train(found, same[0], method), PolicyName(method, seed=seed).label


def _train(found: Found, training: FoundTraining, method: str) -> str:
    """Return the command that trains `method` with the options of `training`.

    Options that begin with "method" are left out if `training` has another method.
    """
    options = [o for o in training.options if method == training.method or not o.startswith("method")]
    options = options or [f"env={training.game}", f"seed={training.seed}"]
    return _command(found, "train", *options, *([] if f"method={method}" in options else [f"method={method}"]))


def _command(found: Found, module: str, *options: str) -> str:
    outputs = [] if str(found.outputs) == "outputs" else [f"outputs={found.outputs}"]
    return shlex.join(["python", "-m", module, *options, *outputs])
