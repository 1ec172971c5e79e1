"""A new kind of map is one entry in KINDS: it appears wherever the others do."""

import numpy as np
import pytest
from example_outputs import SMALL, write_example
from swept_maps import CLEAN, Q_VALUES, sweep

from analyze.report.chart_sheets import chart_sheets
from analyze.report.load import find
from analyze.report.map_sheets import map_sets, map_sheets
from analyze.report.page import Drawings, build_page
from analyze.report.pairing import with_differences
from analyze.report.tables import all_tables
from analyze.workspace import study_workspace
from nrmap.maps.episode_maps import load_maps, save_maps
from nrmap.maps.heatmaps import map_figures
from nrmap.maps.kinds import KINDS, Ablated, MapKind


def largest_change(state: Ablated) -> np.ndarray:
    return np.ptp(state.ablated - state.clean, axis=0)  # free of what all actions of an ablation share


@pytest.fixture(autouse=True)
def _sixth_kind(monkeypatch):
    kind = MapKind(
        name="change", symbol="C", title="change map", meaning="Largest change of a Q-value relative to another.",
        why_zero="no pixel changes a Q-value", unit="change in Q, sum over states", colours="cividis", digits=3,
        summand=largest_change,
    )  # fmt: skip
    monkeypatch.setitem(KINDS, kind.name, kind)


def test_it_is_swept_saved_and_drawn(tmp_path):
    maps = sweep(Q_VALUES, CLEAN, [0, 0, 1, 1])
    changes = (Q_VALUES - CLEAN[:, None, None]).double()
    by_hand = (changes.amax(dim=-1) - changes.amin(dim=-1)).numpy()
    np.testing.assert_allclose(maps["change"], [by_hand[:2].sum(axis=0), by_hand[2:].sum(axis=0)], rtol=1e-6)
    save_maps(tmp_path / "maps.npz", maps, {})
    loaded, _ = load_maps(tmp_path / "maps.npz")
    assert np.array_equal(loaded["change"], maps["change"])
    titles = [ax.get_title().split("\n")[0] for ax in next(map_figures(loaded.total())).axes]
    assert "Change map  C(i, j)" in titles


def test_it_is_measured_and_on_the_page(tmp_path, tiny_settings, monkeypatch):
    monkeypatch.setattr("analyze.report.page.picture", lambda sheet, panel: "data:,")
    write_example(tmp_path, tiny_settings(), SMALL)
    found = with_differences(find(tmp_path))
    keys = {record.metric_key for record in (*found.records, *found.differences)}
    of_change, of_kl = ({key for key in keys if key.startswith(kind)} for kind in ("change_", "kl_"))
    assert of_change == {key.replace("kl_", "change_") for key in of_kl} != set()
    (part,) = found.parts()
    sheets = map_sheets(part, map_sets(part, tmp_path)[0])
    assert any(sheet.name.startswith("change-Freeway") for sheet in sheets)
    (sparsity,) = [sheet for sheet in chart_sheets(part) if sheet.name == "sparsity-Freeway"]
    assert any("S(C)" in panel.alt for panel in sparsity.panels)
    page = build_page(found, all_tables(found.records, found.differences), [Drawings(part, sheets, [])], [])
    shown = ("Change map  C(i, j)", "S(C)", "grid(C)", "Largest change of a Q-value relative to another.")
    assert [text for text in shown if text not in page] == []


def test_it_is_on_the_dashboard():
    pytest.importorskip("wandb_workspaces")
    workspace = study_workspace(entity="team", project="p", temperatures=[1.0])
    assert "change_sparsity" in workspace._to_model().model_dump_json()
