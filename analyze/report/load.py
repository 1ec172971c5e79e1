"""Read everything under an outputs folder: runs, curves, policies, records, maps."""

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from analyze.report.results import Found, FoundTraining, Result, measurement_of
from analyze.report.variants import told_apart, with_variants
from nrmap.learning.recorded import ForeignSettings, GivenOptions, RecordedCurves, RecordedSettings
from nrmap.maps.episode_maps import EpisodeMaps
from nrmap.maps.measures import load_measured, read_measured
from nrmap.policies.policy import load_policy
from nrmap.support.errors import NrmapError, check
from nrmap.support.files import TEMPORARY_PREFIX, read_json, sha256_of_file
from nrmap.support.identity import VERSIONS, stage_identity
from nrmap.support.layout import (
    CURVES_FILE,
    MAPS_FILE,
    METRICS_FILE,
    OPTIONS_FILE,
    POLICY_FILE,
    REFERENCE_FOLDER,
    SETTINGS_FILE,
)
from nrmap.support.records import Record
from nrmap.support.schema import validated

Content = TypeVar("Content")
# The folders that hold metrics files.
_RESULT_ROOTS = ("evaluation", "maps", REFERENCE_FOLDER)


def find(outputs: Path) -> Found:
    """Read everything under `outputs`, without differences. Unreadable files are left out and named in `problems`."""
    problems = list(_closed_folders(outputs))

    def read_all(read: Callable[[Path, Path], Content], paths: Iterable[Path]) -> list[Content]:
        contents = (readable(partial(read, outputs), path, outputs, problems) for path in paths)
        return [content for content in contents if content is not None]

    trainings = with_variants(_without_published(read_all(_training, _training_folders(outputs))))
    metrics = (path for name in _RESULT_ROOTS for path in sorted((outputs / name).rglob(METRICS_FILE)))
    results = told_apart(_without_superseded(read_all(_result, metrics), problems), trainings)
    merged, disagreements = _merged(results)
    problems += [
        f"{other}: {count} of its values differ from those of {shown}, and the latter are shown"
        for (shown, other), count in disagreements.items()
    ]
    records, folders = tuple(record for record, _ in merged), tuple(folder for _, folder in merged)
    return Found(outputs, tuple(trainings), tuple(results), tuple(problems), records, folders)


def _closed_folders(outputs: Path) -> Iterator[str]:
    """Yield a line for each folder of results that may not be read: `Path.rglob` passes over these in silence."""
    refused: list[OSError] = []
    for name in ("train", *_RESULT_ROOTS):
        deque(os.walk(outputs / name, onerror=refused.append), maxlen=0)
    for error in refused:
        if not isinstance(error, FileNotFoundError):
            yield f"{Path(error.filename).relative_to(outputs)}: left out, {error.strerror}"


def _training_folders(outputs: Path) -> Iterator[Path]:
    for root in (outputs / "train", outputs / REFERENCE_FOLDER):
        yield from sorted({path.parent for name in (POLICY_FILE, CURVES_FILE) for path in root.rglob(name)})


def _without_published(trainings: Sequence[FoundTraining]) -> list[FoundTraining]:
    """Leave out the runs whose policies were published as reference policies."""
    published = {training.sha256 for training in trainings if training.reference and training.sha256}
    return [training for training in trainings if training.reference or training.sha256 not in published]


def _training(outputs: Path, folder: Path) -> FoundTraining:
    curves = _if_there(folder / CURVES_FILE, RecordedCurves)
    card, sha256 = None, None
    if os.path.lexists(folder / POLICY_FILE):
        policy = load_policy(folder / POLICY_FILE)
        card, sha256, game = policy.card, policy.sha256, policy.env.game
        method, seed, settings = card.method, card.seed, card.settings
        form = RecordedSettings if card.source is None else ForeignSettings
        validated(form, settings, f"{folder / POLICY_FILE}: card.settings")
    else:
        settings = read_json(folder / SETTINGS_FILE, RecordedSettings)
        game, method, seed = settings["env"]["game"], settings["method"], settings["seed"]
    given = tuple(_if_there(folder / OPTIONS_FILE, GivenOptions) or ())
    root, *below = (place := folder.relative_to(outputs)).parts
    check(bool(below), f"{folder}: expected a training in a folder of its own below it, not in it")
    reference = below[0] if root == REFERENCE_FOLDER else None
    return FoundTraining(str(place), game, method, seed, reference, settings, curves, card, sha256, given)


def _if_there(path: Path, form: Any) -> Any:
    return read_json(path, form) if os.path.lexists(path) else None


def _result(outputs: Path, path: Path) -> Result:
    """Read a metrics file; NrmapError if it is outdated, or of maps where play belongs, or the reverse."""
    folder, maps = path.parent.relative_to(outputs), path.with_name(MAPS_FILE)
    metrics, of_maps = read_measured(path), folder.parts[0] == "maps"
    here, elsewhere = ("maps", "play") if of_maps else ("play", "maps")
    fits = all((record.states_from is not None) == of_maps for record in metrics.records)
    check(fits, f"{path} holds records of {elsewhere}: expected records of {here}")
    result = Result(
        str(folder), folder.parts[0] == REFERENCE_FOLDER, metrics.records, metrics.settings, metrics.inputs,
        metrics.provenance, maps if of_maps and os.path.lexists(maps) else None,
    )  # fmt: skip
    check(not _is_outdated(result), f"{folder}: left out, another version of this project measured it")
    return result


def _is_outdated(result: Result) -> bool:
    """Whether `result` is play that another version of this project measured: its episodes or attacks may differ.

    Maps are never outdated: `_without_superseded` and `told_apart` handle other versions of maps.
    """
    if result.is_of_maps:
        return False
    if result.policy_sha256 is not None:
        return result.inputs.get("version") != VERSIONS["evaluation"]
    return Path(result.folder).name != stage_identity("baselines", **result.settings)


def _without_superseded(results: Sequence[Result], problems: list[str]) -> list[Result]:
    """Leave out maps of earlier versions where this version has mapped the same policy, states and ablation."""

    def subject(result: Result) -> tuple[object, ...]:
        return result.policy_sha256, result.first.states_from, result.states_sha256, str(result.protocol)

    old = [result for result in results if result.is_of_maps and result.inputs.get("version") != VERSIONS["maps"]]
    current = {subject(result) for result in results if result.is_of_maps and result not in old}
    superseded = [result for result in old if subject(result) in current]
    problems += [f"{result.folder}: left out, this version has made the same maps anew" for result in superseded]
    return [result for result in results if result not in superseded]


def readable(read: Callable[[Path], Content], path: Path, outputs: Path, problems: list[str]) -> Content | None:
    """Return `read(path)`; None for a file that is missing, damaged or has no name in UTF-8.

    Then the error is added to `problems`, with paths relative to `outputs`.
    """
    try:
        check(not re.search("[\ud800-\udfff]", str(path)), f"{path}: left out, expected a name in UTF-8")
        return read(path)
    except (NrmapError, OSError) as error:  # OSError: a folder that may not be entered
        problems.append(str(error).replace(f"{outputs}/", ""))
        return None


def readable_maps(result: Result, outputs: Path, problems: list[str]) -> EpisodeMaps | None:
    """Return the maps of `result`; None if it has none. None also if they are damaged: see `readable`."""
    load = partial(load_measured, inputs=result.inputs)
    return readable(load, result.maps, outputs, problems) if result.maps else None


def _merged(results: list[Result]) -> tuple[list[tuple[Record, str]], Counter[tuple[str, str]]]:
    """Return every measurement once, with its folder; and how many values differ, by pair of folders (kept, other).

    The value of the first folder is kept; reference folders come last.
    """
    merged: dict[tuple[Any, ...], tuple[Record, str]] = {}
    disagreements: Counter[tuple[str, str]] = Counter()
    for result in sorted(results, key=lambda result: result.reference):
        for record in result.records:
            found, folder = merged.setdefault(measurement_of(record), (record, result.folder))
            if found.value != record.value:
                disagreements[folder, result.folder] += 1
    return list(merged.values()), disagreements


def digest_of_inputs(outputs: Path) -> dict[str, str]:
    """Return the SHA-256 of the result files that a report depends on, by path relative to `outputs`.

    Files that cannot be read, or that another process removes meanwhile, are left out.
    """
    roots = ("train", "evaluation", "maps", "states", REFERENCE_FOLDER)
    names = {POLICY_FILE, CURVES_FILE, METRICS_FILE, SETTINGS_FILE, OPTIONS_FILE}
    paths = (path for root in roots for path in (outputs / root).rglob("*"))
    wanted = (path for path in paths if path.name in names or path.suffix == ".npz")
    digests = {}
    for path in sorted(wanted):
        with suppress(NrmapError):
            if not path.name.startswith(TEMPORARY_PREFIX):
                digests[str(path.relative_to(outputs))] = sha256_of_file(path)
    return digests
