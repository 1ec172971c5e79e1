"""The maps, charts and figure sheets of one game."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analyze.report.figure_files import Panel, Sheet
from analyze.report.figures import comparison_sheet, kinds_sheet, overlay_sheet, screen_of
from analyze.report.gallery import MapSet, by_states, methods_of, numbers_of, one_of_each_kind
from analyze.report.learning_curves import curve_panels
from analyze.report.load import read_maps, readable
from analyze.report.names import name_of, states_of
from analyze.report.panels import (
    action_panels,
    certified_panels,
    gap_panels,
    grid_panels,
    null_network_panels,
    return_panels,
    size_panels,
    sparsity_panels,
    temperature_panels,
)
from analyze.report.results import Found, Result, Training
from analyze.report.tables import headline_temperature
from nrmap.maps.kinds import KINDS
from nrmap.play.states import load_states
from nrmap.support.errors import NrmapError
from nrmap.support.records import Record

CHART_SIZE = (4.2, 3.1)


@dataclass(frozen=True)
class GameSource:
    """All results of one game's policies, either of the reference policies or of those trained here."""

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

    @property
    def trained(self) -> list[Record]:
        """The records without null networks."""
        return [record for record in self.records if not record.is_null_network]


def game_sources(found: Found) -> list[GameSource]:
    """All games in order, in each the reference policies before those trained here."""
    sources = []
    for game in found.games:
        for reference in (True, False):
            results = [result for result in _results_of(found, reference) if result.first.game == game]
            measured = {record for result in results for record in result.records}
            source = GameSource(
                game,
                reference,
                [record for record in found.records if record in measured],
                [training for training in found.trainings if training.game == game and training.reference == reference],
                results,
                [
                    record
                    for record in found.differences
                    if record.game == game and _is_of(record.policy_sha256, found, reference)
                ],
            )
            if source.trainings or any(result.policy_sha256 and not result.first.is_null_network for result in results):
                sources.append(source)
    return sources


def _results_of(found: Found, reference: bool) -> list[Result]:
    """The results of the reference policies, or of the policies trained here, in the order found.

    State-independent baselines are in both. A null network goes with the policies measured on the same
    states, and is in both if there are none.
    """
    states: dict[bool, set[str]] = {True: set(), False: set()}
    for result in found.results:
        if result.is_of_maps and not result.first.is_null_network:
            states[result.policy_sha256 in found.reference].add(result.states_sha256)
    elsewhere = states[not reference] - states[reference]
    return [
        result
        for result in found.results
        if (
            result.states_sha256 not in elsewhere
            if result.first.is_null_network
            else _is_of(result.policy_sha256, found, reference)
        )
    ]


def _is_of(policy_sha256: str | None, found: Found, reference: bool) -> bool:
    return policy_sha256 is None or (policy_sha256 in found.reference) == reference


def map_sets(source: GameSource, outputs: Path) -> tuple[list[MapSet], list[str]]:
    """The maps of every policy, and an error for every file that could not be read.

    Of several analyses of a policy on the same states the one with the most temperatures is taken.
    """
    sets: dict[tuple[object, ...], MapSet] = {}
    problems: list[str] = []
    for result in source.results:
        maps = readable(read_maps, result.maps, outputs, problems) if result.maps and result.is_of_maps else None
        if maps is None:
            continue
        total = maps.total()
        map_set = MapSet(name_of(result.first), states_of(result.first), total, result.states_path(outputs))
        key = (map_set.name, map_set.states, total.num_states)
        if key not in sets or len(total.temperatures) > len(sets[key].total.temperatures):
            sets[key] = map_set
    return list(sets.values()), problems


@dataclass(frozen=True)
class Chart:
    """One kind of chart: its heading and caption, and its panels for one game."""

    title: str
    caption: str
    panels: Callable[[GameSource], list[Panel]]


CHARTS = {
    "sparsity": Chart(
        "Sparsity",
        "Sparsity of every map; smaller is sparser. Bars are 95% intervals, dashed lines the paper's numbers.",
        lambda source: sparsity_panels(source.trained),
    ),
    "controls": Chart(
        "Agents beside null networks",
        "Sparsity of every map beside that of null networks on the same states: random weights, and the weights of "
        "each policy shuffled layer by layer. Dots are draws, strokes their means.",
        lambda source: null_network_panels(source.records),
    ),
    "grid": Chart(
        "The grid",
        "Does a map show a grid of 8 pixels, the stride of the network? Energy at multiples of 1/8 cycle per pixel, "
        "divided by the energy at neighbouring frequencies. Bars are 95% intervals, dots draws of null networks.",
        lambda source: grid_panels(source.records),
    ),
    "size": Chart(
        "Sparsity against N",
        "Sparsity against the number of states N. Every seed is a line; bands are 95% intervals.",
        lambda source: size_panels(source.trained),
    ),
    "temperature": Chart(
        "Sparsity against T",
        "Sparsity against the temperature T. Every seed is a line; bands are 95% intervals.",
        lambda source: temperature_panels(source.trained),
    ),
    "returns": Chart(
        "Returns",
        "Dots are episodes, markers their means, bars 95% intervals.",
        lambda source: return_panels(source.trained),
    ),
    "certified": Chart(
        "Certified actions",
        "Fraction of the states of clean episodes for which interval bounds prove that no state of the ball has "
        "another greedy action.",
        lambda source: certified_panels(source.trained),
    ),
    "actions": Chart(
        "Actions",
        "Actions of the greedy policies, in percent of all steps.",
        lambda source: action_panels(source.trained),
    ),
    "gaps": Chart(
        "Q-gaps",
        "Thin lines go from the 1% to the 99% quantile, thick lines from 25% to 75%. Markers are medians.",
        lambda source: gap_panels(source.trained),
    ),
    "curves": Chart(
        "Learning curves",
        "Every run is a line, every episode a dot.",
        lambda source: curve_panels(source.trainings, source.trained),
    ),
}


def chart_panels(source: GameSource) -> dict[str, list[Panel]]:
    """The charts of a game by name; kinds without data are left out."""
    return {name: panels for name, chart in CHARTS.items() if (panels := chart.panels(source))}


def chart_sheet(source: GameSource, name: str, panels: Sequence[Panel]) -> Sheet:
    """The panels of one kind of chart on one sheet for print."""
    columns = 4 if len(panels) % 4 == 0 else 3
    caption = f"{source.game}. {CHARTS[name].caption}"
    return Sheet(f"{name}-{source.name}", caption, tuple(panels), columns, CHART_SIZE)


def map_sheets(source: GameSource, sets: Sequence[MapSet]) -> list[Sheet]:
    """Figures 1 (KMAP) and 2 (HMAP) of the paper, the other kinds of maps, and one policy of every method.

    A row for each seed, a column for each method. A sheet without any map at the headline temperature is left out.
    """
    temperature = headline_temperature(source.records)
    sheets = []
    kinds = one_of_each_kind(sets)
    if kinds:
        beside = " beside null networks" if any(map_set.name.is_null_network for map_set in kinds) else ""
        caption = f"All kinds of agents{beside}, {source.game}, {next(iter(by_states(kinds[:1])))}"
        shown = {map_set.name.label: map_set.total for map_set in kinds}
        sheets.append(kinds_sheet(f"kinds-{source.name}", caption, shown, temperature))
    trained = [map_set for map_set in sets if not map_set.name.is_null_network]
    for states, group in by_states(trained).items():
        slug = re.sub(r"[^\w.-]+", "-", states.replace("N = ", ""))
        there, methods = {map_set.name: map_set.total for map_set in group}, methods_of(group)
        names = [method.numbered(seed) for seed in numbers_of(group) for method in methods]
        maps = {name.label: there.get(name) for name in names}
        for kind in KINDS.values():
            caption = f"{kind.heading}, {source.game}, {states}"
            figure = f"figure{kind.paper_figure}" if kind.paper_figure else kind.name.replace("_", "-")
            name = f"{figure}-{source.name}-{slug}"
            sheets.append(comparison_sheet(name, caption, maps, kind.name, temperature, columns=len(methods)))
    return [sheet for sheet in sheets if any(sheet.panels)]


def overlay_sheets(source: GameSource, sets: Sequence[MapSet], outputs: Path) -> tuple[list[Sheet], list[str]]:
    """Maps over the game's screen, for the first seed on its own states; and an error for every unreadable file."""
    trained = [map_set for map_set in sets if not map_set.name.is_null_network]
    own = [map_set for map_set in trained if map_set.states.states_from == "own"] or trained
    shown, problems = {}, []
    for map_set in sorted(own, key=lambda map_set: map_set.name.rank):
        if map_set.name.number not in numbers_of(own)[:1]:
            continue
        try:
            shown[map_set.name.label] = screen_of(load_states(map_set.states_path)), map_set.total
        except NrmapError as error:
            problems.append(f"no overlay of {map_set.name.label}: {error}".replace(f"{outputs}/", ""))
    if not shown:
        return [], problems
    caption = f"KMAP and the KL map over a screen of {source.game}, from the middle of the first episode."
    temperature = headline_temperature(source.records)
    return [overlay_sheet(f"overlay-{source.name}", caption, shown, temperature)], problems
