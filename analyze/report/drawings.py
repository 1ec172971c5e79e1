"""What is drawn for one game: its maps, and the sheets of charts and heat maps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.report.figure_files import Panel, Sheet
from analyze.report.figures import comparison_sheet, kinds_sheet, overlay_sheet, screen_of
from analyze.report.gallery import MapSet, by_states, one_of_each_kind
from analyze.report.labels import Result, Training, states_sha256
from analyze.report.load import Found, read_maps
from analyze.report.map_panels import control_panels, grid_panels, size_panels, sparsity_panels, temperature_panels
from analyze.report.names import is_control, method_rank, policy_label
from analyze.report.play_panels import (
    Run,
    action_panels,
    certified_panels,
    curve_panels,
    gap_panels,
    return_panels,
)
from analyze.report.tables import headline_temperature
from nrmap.maps.heatmaps import KINDS
from nrmap.maps.sparsity import MapKind
from nrmap.play.states import load_states
from nrmap.support.errors import NrmapError
from nrmap.support.records import Record

CHART_SIZE = (4.2, 3.1)
_CHARTS = {
    "sparsity": "Sparsity of every map, smaller is sparser; bars are 95% intervals, dashed lines the paper's numbers.",
    "controls": "Sparsity of every map beside that of networks that have learned nothing, on the same states: random "
    "weights, and the weights of each policy shuffled layer by layer; every draw a dot, their mean a stroke.",
    "grid": "Is there a grid of 8 pixels, the stride of the network, in a map? Its energy at multiples of 1/8 cycle "
    "per pixel over that of the neighbouring frequencies; bars are 95% intervals, the draws of controls dots.",
    "size": "Sparsity against the number of states N; bands are 95% intervals.",
    "temperature": "Sparsity against the temperature T; bands are 95% intervals.",
    "returns": "Every episode a dot, the mean a marker, its 95% interval a bar.",
    "certified": "States of clean episodes whose action is proven, by interval bounds, to be the same for every state "
    "of the ball.",
    "actions": "How often the greedy policies take each action.",
    "gaps": "Q-gap: thin lines from the 1% to the 99% quantile, thick ones from 25% to 75%, the median a marker.",
    "curves": "Training: every run a line, every episode a dot.",
}


@dataclass(frozen=True)
class GameSource:
    """One game's policies from one place, trained here or come with the project, and all there is of them."""

    game: str
    reference: bool
    records: Sequence[Record]
    trainings: Sequence[Training]
    results: Sequence[Result]
    differences: Sequence[Record] = ()

    @property
    def name(self) -> str:
        """For files and anchors: `Freeway`, `Freeway-reference`."""
        return f"{self.game}-reference" if self.reference else self.game


def game_sources(found: Found) -> list[GameSource]:
    """All games in order, in each the reference policies before those trained here."""
    sources = []
    for game in found.games:
        for reference in (True, False):
            results = [one for one in _results_of(found, reference) if one.records[0].game == game]
            measured = {record for result in results for record in result.records}
            source = GameSource(
                game,
                reference,
                [record for record in found.records if record in measured],
                [one for one in found.trainings if one.game == game and one.reference == reference],
                results,
                [one for one in found.differences if one.game == game and _is_of(one.policy_sha256, found, reference)],
            )
            if source.trainings or any(one.policy_sha256 and not _of_control(one) for one in results):
                sources.append(source)
    return sources


def _results_of(found: Found, reference: bool) -> list[Result]:
    """What was measured of the reference policies, or of those trained here, in the order found.

    Blind players, which belong to no training, are in both. A control is where policies were measured
    on the same states, and in both if none was.
    """
    states: dict[bool, set[str]] = {True: set(), False: set()}
    for result in found.results:
        if result.states is not None and not _of_control(result):
            states[result.policy_sha256 in found.reference].add(states_sha256(result))
    elsewhere = states[not reference] - states[reference]
    return [
        result
        for result in found.results
        if result.records
        and (
            states_sha256(result) not in elsewhere
            if _of_control(result)
            else _is_of(result.policy_sha256, found, reference)
        )
    ]


def _is_of(policy_sha256: str | None, found: Found, reference: bool) -> bool:
    return policy_sha256 is None or (policy_sha256 in found.reference) == reference


def _of_control(result: Result) -> bool:
    return bool(result.records) and is_control(result.records[0].method)


def map_sets(source: GameSource, outputs: Path) -> tuple[list[MapSet], list[str]]:
    """The maps of every policy, and what could not be read."""
    sets, problems = [], []
    for result in source.results:
        if result.maps is None or result.states is None:
            continue
        first = next(record for record in result.records if record.states_from is not None)
        try:
            total = read_maps(result.maps).total()
        except NrmapError as error:
            problems.append(str(error).replace(f"{outputs}/", ""))
            continue
        path = result.states_path(outputs)
        sets.append(MapSet(first.method, first.seed, first.states_from or "", total, path))
    return _without_repeats(sets), problems


def _without_repeats(sets: Sequence[MapSet]) -> list[MapSet]:
    """One set of maps for each policy and states: that with the most temperatures."""
    best: dict[tuple[object, ...], MapSet] = {}
    for one in sorted(sets, key=lambda one: -len(one.total.temperatures)):
        best.setdefault((one.method, one.seed, one.states, one.total.num_states), one)
    return list(best.values())


def chart_panels(source: GameSource) -> dict[str, list[Panel]]:
    """The charts of a game by name, without those for which nothing was measured."""
    runs = [
        Run(training.method, training.seed, training.curves, _steps_before(training.settings))
        for training in source.trainings
        if training.curves is not None
    ]
    trained = [record for record in source.records if not is_control(record.method)]
    panels = {
        "sparsity": sparsity_panels(trained),
        "controls": control_panels(source.records),
        "grid": grid_panels(source.records),
        "size": size_panels(trained),
        "temperature": temperature_panels(trained),
        "returns": return_panels(trained),
        "certified": certified_panels(trained),
        "actions": action_panels(trained),
        "gaps": gap_panels(trained),
        "curves": curve_panels(runs, trained),
    }
    return {name: each for name, each in panels.items() if each}


def chart_sheet(source: GameSource, name: str, panels: Sequence[Panel]) -> Sheet:
    """The panels of one kind of chart on one sheet for print."""
    columns = 4 if len(panels) % 4 == 0 else 3
    return Sheet(f"{name}-{source.name}", f"{source.game}. {_CHARTS[name]}", tuple(panels), columns, CHART_SIZE)


def caption_of(name: str) -> str:
    """What a kind of chart shows."""
    return _CHARTS[name]


_MAP_SHEETS: dict[MapKind, str] = {"kmap": "figure1", "hmap": "figure2", "kl": "kl", "margin_drop": "margin-drop"}


def map_sheets(source: GameSource, sets: Sequence[MapSet]) -> list[Sheet]:
    """Figures 1 (KMAP) and 2 (HMAP) of the paper with every method and seed, other maps, and all kinds of agents.

    A row for each seed, a column for each method. Without a single map at the temperature of the
    headline a sheet is left out.
    """
    temperature = headline_temperature(source.records)
    sheets = []
    kinds = one_of_each_kind(sets)
    if kinds:
        beside = " beside controls" if any(is_control(one.method) for one in kinds) else ""
        caption = f"All kinds of agents{beside}, {source.game}, {next(iter(by_states(kinds[:1])))}"
        shown = {policy_label(one.method, one.seed): one.total for one in kinds}
        sheets.append(kinds_sheet(f"kinds-{source.name}", caption, shown, temperature))
    trained = [one for one in sets if not is_control(one.method)]
    for states, group in by_states(trained).items():
        slug = re.sub(r"[^\w.-]+", "-", states.replace("N = ", ""))
        seeds = sorted({one.seed for one in group}, key=lambda seed: (seed is None, seed))
        methods = sorted({one.method for one in group}, key=method_rank)
        there = {(one.method, one.seed): one.total for one in group}
        maps = {policy_label(method, seed): there.get((method, seed)) for seed in seeds for method in methods}
        for kind, name in _MAP_SHEETS.items():
            caption = f"{KINDS[kind].title}, {source.game}, {states}"
            name = f"{name}-{source.name}-{slug}"
            sheets.append(comparison_sheet(name, caption, maps, kind, temperature, columns=len(methods)))
    return [sheet for sheet in sheets if any(sheet.panels)]


def overlay_sheets(source: GameSource, sets: Sequence[MapSet], outputs: Path) -> tuple[list[Sheet], list[str]]:
    """Maps over the game's own screen, for the first seed on its own states; and what could not be read."""
    trained = [one for one in sets if not is_control(one.method)]
    own = [one for one in trained if one.states == "own"] or trained
    seeds = sorted({one.seed for one in own}, key=lambda seed: (seed is None, seed))[:1]
    shown, problems = {}, []
    for one in sorted(own, key=lambda one: method_rank(one.method)):
        if one.seed not in seeds:
            continue
        try:
            shown[policy_label(one.method, one.seed)] = screen_of(load_states(one.states_path)), one.total
        except NrmapError as error:
            problems.append(f"no overlay of {policy_label(one.method, one.seed)}: {error}".replace(f"{outputs}/", ""))
    if not shown:
        return [], problems
    caption = f"KMAP and the KL map over a screen of {source.game}, from the middle of the first episode."
    temperature = headline_temperature(source.records)
    return [overlay_sheet(f"overlay-{source.name}", caption, shown, temperature)], problems


def _steps_before(settings: Mapping[str, object]) -> int:
    """The agent steps of the policies that a run started from, all the way back."""
    parent = settings.get("parent")
    return int(str(parent["steps"])) + _steps_before(parent) if isinstance(parent, dict) else 0
