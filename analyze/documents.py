"""`python -m analyze.documents`: write what is computed in README.md and docs/, and the cards of reference policies.

All numbers come from committed files: the reference policies, the evaluations beside them, the numbers of their maps
in outputs/reference/SCALE/GAME/maps.json, the published numbers in analyze/report/published.csv, and the settings in
conf/. The README also quotes examples/map_your_own_network.py. `--collect` first writes maps.json from the results of
`make maps controls`, for each scale that has some, and docs/maps.png from the report's figure of the README's scale.
"""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image

from analyze.publish import card
from analyze.report.build import FIGURES
from analyze.report.formats import Table, counted, to_markdown
from analyze.report.literature import PUBLISHED_RETURNS, paper_number
from analyze.report.load import find
from analyze.report.names import PolicyName, grouped, name_of
from analyze.report.pairing import BASE, differences_over_seeds, with_differences
from analyze.report.results import best_constant_actions, flattened
from analyze.report.return_tables import action_table, q_gap_table, returns_table
from analyze.report.summary import glance
from analyze.report.tables import map_table
from conf.argument_parser import ArgumentParser
from conf.command_line import composed
from conf.schema import TrainKeys
from conf.train_settings import SOLVERS, train_settings
from nrmap.maps.differences import DIFFERENCE
from nrmap.policies.policy import load_policy
from nrmap.robustness.attacks import GRADIENT_ATTACKS
from nrmap.robustness.perturbations import epsilon_text
from nrmap.support.errors import NrmapError, check, errors_in_one_line, refused
from nrmap.support.files import atomic_path, sha256_of_file, write_text
from nrmap.support.layout import CARD_FILE, METRICS_FILE, POLICY_FILE, Layout
from nrmap.support.records import Record, read_records, select, write_records
from nrmap.support.schema import validated

ROOT = Path(__file__).parents[1]
PROGRAM = Path("examples/map_your_own_network.py")
MAPS_RECORDS_FILE = "maps.json"
SCALE, GAME = "quick", "Freeway"  # of the README's finding and picture
RADIUS = 1 / 255  # of the README's table
ADVERSARIAL = "sa_ddqn"
_PICTURE_WIDTH = 1500
_MAP_METRICS = ("sparsity", "grid_excess", "grid_p_value")
_NO_MAPS = "Not measured: `make maps controls`, then `python -m analyze.documents --collect`."


def with_blocks(path: Path, blocks: Mapping[str, str]) -> str:
    """Return the text of `path` with `blocks[NAME]` between `<!-- begin NAME: … -->` and `<!-- end NAME -->`.

    Raises NrmapError unless the file can be read and has each block exactly once.
    """
    with refused(f"cannot read {path}"):
        text = path.read_text(encoding="utf-8")
    for name, content in blocks.items():
        found = list(re.finditer(rf"<!-- begin {name}:[^\n]*-->\n(.*?)<!-- end {name} -->", text, re.DOTALL))
        if len(found) != 1:
            raise NrmapError(f"{path}: expected exactly one block `<!-- begin {name}: … -->` to `<!-- end {name} -->`")
        text = f"{text[: found[0].start(1)]}\n{content.strip()}\n\n{text[found[0].end(1) :]}"
    return text


def write_documents(documents: Mapping[Path, str]) -> None:
    """Write every file whose text differs, atomically, and print its path.

    Raises NrmapError if a file cannot be written.
    """
    for path, text in documents.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
            print(path)


def collect(layout: Layout) -> list[Path]:
    """Write a maps.json for each scale and game of reference policies with maps on pooled states; return the paths.

    A maps.json holds S and the grid number with its p-value, of policies and null networks, and the differences in S
    between policies of one seed; `documents` derives those over seeds. Of maps that depend on T, only those at T = 1
    count. Raises NrmapError for a damaged reference policy and for a file that cannot be written.
    """
    found = with_differences(find(layout.outputs))
    maps = [result for result in found.results if result.is_of_maps and result.first.states_from == "pool"]
    files = []
    for folder in sorted(layout.references.glob("*/*")):
        policies = {load_policy(path).sha256 for path in folder.glob(f"*/*/{POLICY_FILE}")}
        pools = {result.states_sha256 for result in maps if result.policy_sha256 in policies}
        records = [
            record
            for result in maps
            if result.states_sha256 in pools and (result.policy_sha256 in policies or result.first.is_null_network)
            for record in result.records
            if record.metric in _MAP_METRICS
        ]
        paired = (record for record in found.differences if record.seed is not None)
        records += [record for record in paired if record.policy_sha256 in policies and record.states_from == "pool"]
        chosen = [record for record in records if record.temperature in (None, 1.0) and not record.is_part]
        if chosen:
            files.append(folder / MAPS_RECORDS_FILE)
            write_records(files[-1], chosen)
    return files


def write_picture(figure: Path, picture: Path) -> None:
    """Scale the picture `figure` to a width of 1,500 pixels; write it to `picture`."""
    image = Image.open(figure)
    small = image.resize((_PICTURE_WIDTH, round(image.height * _PICTURE_WIDTH / image.width)), Image.Resampling.LANCZOS)
    with atomic_path(picture) as temporary:
        small.save(temporary, format="png", optimize=True)


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Return, by path, the texts of README.md, docs/results.md, docs/training.md and the evaluated policies' cards.

    They are made from the files of the clone `root`, and from the settings in conf/ beside this module. Raises
    NrmapError for a damaged policy or file of records, and as `with_blocks` does. Raises OSError if the program or the
    folder of reference policies is missing.
    """
    references = Layout(root / "outputs").references
    program = (root / PROGRAM).read_text(encoding="utf-8")
    blocks = {"program": f"```python\n{program.strip()}\n```"}
    titles = ["scale", "game", "policies", *(title for title, *_ in _README_COLUMNS)]
    rows = [titles, ["---"] * len(titles)]
    constant: dict[tuple[str, str], float | None] = {}
    play_sections, map_sections, cards = [], [], {}
    for folder in sorted(references.iterdir()):
        measured = {path: read_records(path) for path in sorted(folder.rglob(METRICS_FILE))}
        play = [record for records in measured.values() for record in records]
        maps = [record for path in sorted(folder.glob(f"*/{MAPS_RECORDS_FILE}")) for record in read_records(path)]
        maps += differences_over_seeds(maps, reference={})
        policies = [  # evaluated or not
            (game, PolicyName(method, seed=int(seed.removeprefix("seed"))))
            for game, method, seed in (path.parts[-4:-1] for path in folder.glob(f"*/*/*/{POLICY_FILE}"))
        ]
        title = f"### scale={folder.name}"
        for path, records in measured.items():
            file = path.with_name(POLICY_FILE)
            if file.is_file():  # else of baselines
                cards[path.with_name(CARD_FILE)] = card(load_policy(file), records, sha256_of_file(file))
        rows += [[folder.name, *row] for row in _readme_rows(play, maps, policies)]
        constant |= {(record.game, name_of(record).title): record.value for record in best_constant_actions(play)}
        if play:
            play_sections.append(f"{title}\n\n{_play_section(play)}")
            map_sections.append(f"{title}\n\n{_maps_section(maps) if maps else _NO_MAPS}")
        of_game = select(maps, game=GAME)
        if of_game and folder.name == SCALE:
            sentences = glance(of_game, select(of_game, metric=DIFFERENCE))
            blocks["finding"] = "\n".join(f"* {text}".replace(". ", ".\n  ") for text in sentences)
    rows += [["", *action, _over_seeds([value], 2), *[""] * 5] for action, value in constant.items()]  # of all scales
    rows += [["", *row] for row in _published()]
    blocks["results"] = _piped(rows)
    page, training = root / "docs" / "results.md", root / "docs" / "training.md"
    return {
        root / "README.md": with_blocks(root / "README.md", blocks),
        page: with_blocks(page, {"play": "\n\n".join(play_sections), "maps": "\n\n".join(map_sections)}),
        training: with_blocks(training, {"methods": _methods()}),
        **cards,
    }


def _methods() -> str:
    """Return a table of the settings of `SCALE` in which trainings differ by method, a column for each method."""
    columns = []
    for method in SOLVERS:
        keys = validated(TrainKeys, composed("train", f"scale={SCALE}", f"method={method}"))
        settings = asdict(train_settings(keys))
        settings |= {"parent": settings["parent"] and settings["parent"]["method"]}
        columns.append(flattened(settings))
    names = dict.fromkeys(name for column in columns for name in column if name != "regulariser")
    rows = [[f"`{name}`" * (name != "method"), *(column.get(name, "—") for column in columns)] for name in names]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    rows.insert(1, ["---"] * len(rows[0]))
    return _piped(rows)


def _piped(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _play_section(records: Sequence[Record]) -> str:
    titles = {"return_mean": "Mean returns", "flip_rate": "Flip rates", "certified_rate": "Certified rates"}
    tables: list[Table] = []
    for radius in sorted({record.attack_epsilon for record in records if record.attack_epsilon is not None}):
        whole = returns_table([record for record in records if record.attack_epsilon in (None, radius)])
        tables += [_part(whole, metric, f"{title}, {epsilon_text(radius)}") for metric, title in titles.items()]
    tables += [action_table(records, game) for game in sorted({record.game for record in records})]
    return _as_section([*tables, q_gap_table(records)])


def _maps_section(records: Sequence[Record]) -> str:
    names = ("sparsity", "controls", "differences", "seed-differences", "grid")
    return _as_section([map_table(name, records) for name in names])


def _part(table: Table, metric: str, title: str) -> Table:
    """Return `table` with only the row heads and one metric's columns, headed by their group; drop rows left empty."""
    kept = [index for index, column in enumerate(table.columns) if not column.measured or column.key.startswith(metric)]
    part = table.part(kept)
    columns = tuple(replace(column, title="") if column.measured else column for column in part.columns)
    return replace(part, title=title, columns=columns)


def _as_section(tables: Sequence[Table]) -> str:
    """Render the non-empty tables as Markdown, then their distinct notes as bullets."""
    shown = [table for table in tables if table.rows]
    notes = dict.fromkeys(note for table in shown for note in table.notes)
    return "\n".join([*(to_markdown(replace(table, notes=())) for table in shown), *(f"* {note}" for note in notes)])


# The measured columns of the README's table: title, digits after the point, attacks, and fields of the records.
_README_COLUMNS: tuple[tuple[str, int, Sequence[str | None], Mapping[str, Any]], ...] = (
    ("clean return", 2, ["clean"], {"metric": "return_mean"}),
    ("under FGSM and PGD, 1/255", 2, GRADIENT_ATTACKS, {"metric": "return_mean", "attack_epsilon": RADIUS}),
    ("certified", 3, ["clean"], {"metric": "certified_rate", "attack_epsilon": RADIUS}),
    ("S(K)", 1, [None], {"metric": "sparsity", "map_kind": "kmap"}),
    ("grid(K)", 1, [None], {"metric": "grid_excess", "map_kind": "kmap"}),
    ("grid(Δm)", 1, [None], {"metric": "grid_excess", "map_kind": "margin_drop"}),
)


def _readme_rows(
    play: Sequence[Record], maps: Sequence[Record], policies: Iterable[tuple[str, PolicyName]]
) -> Iterable[list[str]]:
    """Yield the README's rows: mean and range over seeds for each measured method."""
    for (game, method), names in grouped(policies, lambda policy: (policy[0], replace(policy[1], seed=None))).items():
        of_seeds = [
            [record for record in (*play, *maps) if (record.game, name_of(record)) == (game, name)] for _, name in names
        ]
        if any(of_seeds):
            shown = [
                _over_seeds([_lowest(own, attacks, fields) for own in of_seeds], digits)
                for _, digits, attacks, fields in _README_COLUMNS
            ]
            yield [game, f"{method.short}, {counted(len(names), 'seed')}", *shown]


def _lowest(own: Sequence[Record], attacks: Sequence[str | None], fields: Mapping[str, Any]) -> float | None:
    """Return one policy's lowest value of the records with these `attacks` and `fields`; None without any."""
    values = [record.value for record in select(own, **fields) if record.attack in attacks]
    return min((value for value in values if value is not None), default=None)


def _over_seeds(values: Sequence[float | None], digits: int) -> str:
    """Format mean and range of `values`, one for each seed; no range if all are equal.

    None is not measured: then the number of seeds left follows.
    """
    measured = [value for value in values if value is not None]
    if not measured:
        return "not measured"
    text = f"{statistics.fmean(measured):.{digits}f}"
    if min(measured) < max(measured):
        text += f" ({min(measured):.{digits}f} to {max(measured):.{digits}f})"
    return text if len(measured) == len(values) else f"{text}, {counted(len(measured), 'seed')}"


def _published() -> Iterable[list[str]]:
    for agent, method in (("vanilla DQN", BASE), ("SA-DQN (PGD)", ADVERSARIAL)):
        clean, attacked = (
            next(one.printed for one in PUBLISHED_RETURNS if (one.game, one.agent, one.attack) == (GAME, agent, attack))
            for attack in ("clean", "pgd")
        )
        printed = paper_number(GAME, method, "sparsity", "kmap")
        assert printed is not None
        yield [GAME, f"published: {agent}", clean, f"{attacked} (PGD-10)", "", printed.printed, "", ""]


@errors_in_one_line()
def main() -> None:
    """Write the documents that change; with `--collect`, first maps.json and docs/maps.png. Print all paths written.

    An error prints one line and exits with status 2.
    """
    parser = ArgumentParser(prog="python -m analyze.documents", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--collect", action="store_true", help="first write the records and the picture of maps")
    options = parser.parse_args()
    if options.collect:
        layout, picture = Layout(ROOT / "outputs"), ROOT / "docs" / "maps.png"
        collected = collect(layout)
        check(bool(collected), f"no maps of reference policies under {layout.outputs}: run make maps controls")
        figure = layout.report / FIGURES / f"kinds-{GAME}-{SCALE}.png"
        if figure.is_file():
            write_picture(figure, picture)
            collected.append(picture)
        for path in collected:
            print(path)
    write_documents(documents())


if __name__ == "__main__":
    main()
