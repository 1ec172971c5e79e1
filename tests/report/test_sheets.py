"""Sheets of several panels: the places of the panels, and the files."""

import base64
from functools import partial

import numpy as np
import pytest
from axes_drawn import drawn
from example_outputs import Example, made_up_maps, synthetic_states
from PIL import Image

from analyze.report.charts import IntervalRow, ReferenceLine, Series, draw_intervals, draw_lines
from analyze.report.map_sheets import map_panel, overlay_sheet, screen_of
from analyze.report.sheets import PNG_DPI, Panel, Sheet, picture, save_sheet
from nrmap.maps.heatmaps import draw_map
from nrmap.play.rollout import replay_rgb


def svg_of(sheet):
    (panel,) = {panel for panel in sheet.panels if panel}
    return base64.b64decode(picture(sheet, panel).removeprefix("data:image/svg+xml;base64,")).decode()


def test_a_sheet_is_saved_for_print_and_screen_with_equal_bytes_each_time(tmp_path):
    panel = Panel(partial(draw_map, map_=np.eye(5), kind="kmap", title="a"), "alt")
    sheet = Sheet("sheet", "title", "caption", (None, panel, None, panel), 2, (2.0, 1.5))
    first, second = save_sheet(sheet, tmp_path / "a"), save_sheet(sheet, tmp_path / "b")
    for ending in (".png", ".pdf"):
        assert first.with_suffix(ending).read_bytes() == second.with_suffix(ending).read_bytes()
    assert first.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    drawing = Image.open(first)
    assert drawing.size == (4 * PNG_DPI, 3 * PNG_DPI)
    left, right = np.array_split(np.asarray(drawing.convert("L"))[drawing.height // 10 :], 2, axis=1)
    assert left.min() == 255 > right.min()
    assert svg_of(sheet) == svg_of(sheet)
    assert svg_of(sheet).startswith("<?xml")


@pytest.mark.parametrize("draw", [draw_intervals, draw_lines])
def test_names_with_dollars_are_no_formulas(draw):
    rows = [IntervalRow("$x_$", 1.0, "red"), IntervalRow("$y$", 1000.0, "blue")]
    xs = [10.0 ** np.arange(4), 1 + 100 * np.arange(9)]
    lines = [Series(label, x, np.arange(len(x)), "red") for label, x in zip(("$x_$", "$y$"), xs, strict=True)]
    named = {"rows": rows} if draw is draw_intervals else {"series": lines, "y_label": "S"}
    named |= {"title": "$\\frac$", "x_label": "$z_$", "marks": [ReferenceLine("$\\q$", 2.0)], "log_x": True}
    svg = svg_of(Sheet("sheet", "title", "", (Panel(partial(draw, **named), ""),), 1, (2.0, 1.5)))
    assert [text for text in ("$x_$", "$y$", "$\\frac$", "$z_$", "$\\q$", ">1000<") if text not in svg] == []


def test_cells_without_a_map_stay_empty_and_the_others_keep_their_places(toy):
    at_1, at_2 = (made_up_maps(toy, Example(temperatures=(t,)), "own").total() for t in (1.0, 2.0))
    cells = [(label, total, "hmap", 1.0) for label, total in (("A", at_2), ("B", at_1), ("C", None), ("D", at_1))]
    panels = [map_panel(*cell) for cell in cells]
    assert [panel and drawn(panel).get_title().split("\n")[0] for panel in panels] == [None, "B", None, "D"]
    np.testing.assert_array_equal(drawn(panels[1]).get_images()[0].get_array(), at_1["hmap", 1.0])
    screen = np.zeros((210, 160, 3), dtype=np.uint8)
    overlaid = overlay_sheet("o", "caption", {"A": (screen, at_2), "B": (screen, at_1)}, 1.0).panels
    assert [panel is None for panel in overlaid] == [False, False, True, False]
    np.testing.assert_array_equal(drawn(overlaid[3]).get_images()[1].get_array(), at_1["kl", 1.0])


def test_the_screen_under_an_overlay_is_one_of_the_states(toy):
    states = synthetic_states(toy, Example(num_states=32))
    episode, positions = states.episodes[0], states.positions[states.episode_ids == 0]
    (screen,) = replay_rgb(toy.env, episode.seed, episode.actions, [positions[1]])
    np.testing.assert_array_equal(screen_of(states), screen)
