"""The dashboard in code: what it serialises to, and that it is saved or one line says why not."""

import json
import re
import sys

import pytest
import wandb
from dashboards import TEMPERATURES, panels_of, specification
from wandb_files import forget_account
from wandb_server import server_with_account

from analyze import workspace
from analyze.null_networks import control_summary
from analyze.workspace import study_workspace
from nrmap.maps.null_networks import CONTROL_KINDS
from nrmap.support.errors import NrmapError
from nrmap.support.records import Record
from nrmap.support.tracking import summary_name

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


@pytest.fixture
def serialised():
    return specification()


def test_its_home_and_its_groups(serialised):
    assert (serialised["entity"], serialised["project"]) == ("team", "tried")
    (runs,) = serialised["spec"]["section"]["runSets"]
    assert [(group["section"], group["name"]) for group in runs["grouping"]] == [
        ("config", "game.value"),
        ("config", "method.value"),
    ]
    assert [*runs["runFeed"]["columnPinned"]] == [
        "run:displayName",
        "config:game",
        "config:method",
        "config:seed",
        "summary:return_mean_clean",
        "summary:return_mean_pgd_10_eps0p00392",
        "summary:certified_rate_clean_eps0p00392",
        "summary:certified_rate_clean_eps0p0118",
        "summary:return_mean_greedy_worst_case_eps0p00392",
        "summary:return_mean_greedy_worst_case_eps0p0118",
        "summary:kmap_sparsity",
    ]


def test_curves_are_over_agent_steps(serialised):
    training = panels_of(serialised)["Training"]
    assert {panel["xAxis"] for panel in training.values()} == {"agent_step"}
    assert [panel["metrics"] for panel in training.values()] == [
        ["recent_mean_return"],
        ["loss"],
        ["td_loss"],
        ["anchor_loss"],
        ["robust_loss"],
        ["q_mean"],
        ["adversarial_flips"],
        ["uncertified"],
        ["probe_flips"],
        ["probe_own_flips"],
        ["gradient_cosine"],
        ["margin_fell"],
        ["gradient_sparsity"],
        ["attack_epsilon"],
        ["kappa"],
        ["active_features"],
    ]


def test_a_bar_for_every_attack_and_temperature(serialised):
    panels = panels_of(serialised)
    returns = panels["Returns and attacks"]
    assert returns["Return, clean and under attack"]["metrics"] == [
        "return_mean_clean",
        "return_mean_pgd_10_eps0p00392",
    ]
    (flips,) = (panel for title, panel in returns.items() if "success" in title)
    assert flips["metrics"] == ["flip_rate_pgd_10_eps0p00392"]
    sparsity = panels["Sparsity S = ‖M‖₁ / ‖M‖₂ (eq. 9)"]
    assert sparsity["S(KMAP)"]["metrics"] == ["kmap_sparsity"]
    for kind, title in (("hmap", "S(HMAP) by temperature"), ("kl", "S(KL map) by temperature")):
        assert sparsity[title]["metrics"] == [f"{kind}_sparsity_T0p1", f"{kind}_sparsity_T1", f"{kind}_sparsity_T10"]
    scatter = sparsity["S(KMAP) against the return"]
    assert (scatter["xAxis"], scatter["yAxis"]) == ("summary:return_mean_clean", "summary:kmap_sparsity")


def test_what_is_proven_stands_beside_what_attacks_find(serialised):
    returns = panels_of(serialised)["Returns and attacks"]
    (certified,) = (panel for title, panel in returns.items() if title.startswith("Certified actions"))
    assert certified["metrics"] == ["certified_rate_clean_eps0p00392", "certified_rate_clean_eps0p0118"]
    (worst,) = (panel for title, panel in returns.items() if title.startswith("Greedy worst-case return"))
    assert worst["metrics"] == [
        "return_mean_clean",
        "return_mean_greedy_worst_case_eps0p00392",
        "return_mean_greedy_worst_case_eps0p0118",
    ]


def test_every_map_stands_beside_its_controls_by_the_names_that_analyses_give_them(serialised):
    panels = panels_of(serialised)["Controls and the grid"]
    kmap = panels["S(KMAP) beside random and shuffled weights"]
    assert kmap["metrics"] == ["kmap_sparsity", "random_weights_kmap_sparsity", "shuffled_weights_kmap_sparsity"]
    grid = panels["Grid of the KL map beside random and shuffled weights"]["metrics"]
    assert grid[:3] == [f"{prefix}kl_grid_excess_T0p1" for prefix in ("", "random_weights_", "shuffled_weights_")]
    assert len(panels) == 8
    measured = [
        Record("Freeway", method, None, measure, 2.0, map_kind=kind, temperature=temperature, draw=draw)
        for kind, temperatures in (
            ("kmap", [None]),
            ("margin_drop", [None]),
            ("hmap", TEMPERATURES),
            ("kl", TEMPERATURES),
        )
        for measure in ("sparsity", "grid_excess")
        for temperature in temperatures
        for method in CONTROL_KINDS
        for draw in range(2)
    ]
    asked = {name for panel in panels.values() for name in panel["metrics"]}
    assert {name for name in asked if name.startswith(CONTROL_KINDS)} == control_summary(measured).keys()


def test_heat_maps_are_a_gallery_over_runs(serialised):
    maps = panels_of(serialised)["Maps"]
    assert [panel["mediaKeys"] for panel in maps.values()] == [["heatmaps"], ["overlay"]]
    assert {panel["gallerySettings"]["axis"] for panel in maps.values()} == {"run"}


def test_names_of_the_summary_are_distinct_and_such_that_wandb_can_sort_by_them():
    numbers = (1e-5, 0.1, 1.0, 10.0, 1e5)
    names = [
        summary_name("kmap_sparsity"),
        summary_name("return_mean", attack="clean"),
        summary_name("return_mean", attack="constant_UP"),
        *(summary_name("hmap_sparsity", temperature=number) for number in numbers),
        *(summary_name("flip_rate", attack="pgd-10", attack_epsilon=number) for number in numbers),
    ]
    assert len({name.lower() for name in names}) == len(names)
    # The rule of W&B's documentation, "Metric naming constraints".
    assert all(re.fullmatch("[_a-zA-Z][_a-zA-Z0-9]*", name) for name in names)
    assert summary_name("hmap_sparsity", temperature=0.01) == "hmap_sparsity_T0p01"


def test_a_temperature_must_be_positive():
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(NrmapError, match="temperature=0: expected a number > 0"):
        study_workspace(entity="team", temperatures=[0])


def test_without_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert workspace.main(["--entity", "team"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: wandb-workspaces is not installed")
    assert error.count("\n") == 1


def test_saving_sends_the_specification(monkeypatch, tmp_path, capsys, serialised):
    with server_with_account(monkeypatch, tmp_path) as server:
        temperatures = [str(temperature) for temperature in TEMPERATURES]
        arguments = ["--entity", "team", "--project", "tried", "--temperatures", *temperatures]
        assert workspace.main(arguments) == 0
        assert capsys.readouterr().out == f"{server.url}/team/tried?nw=saved\n"
    (sent,) = server.views
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("team", "tried", workspace.NAME)
    assert panels_of({"spec": json.loads(sent["spec"])}).keys() == panels_of(serialised).keys()


def test_what_goes_wrong_while_saving_is_one_line(monkeypatch, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")
    with server_with_account(monkeypatch, tmp_path) as server:
        server.refuses = 401
        assert workspace.main(["--entity", "team"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: W&B did not save the workspace: ")
        assert error.count("\n") == 1
    forget_account(monkeypatch, tmp_path)
    wandb.teardown()
    assert workspace.main(["--entity", "team"]) == 2
    assert capsys.readouterr().err == "error: no W&B API key: run `wandb login` or set WANDB_API_KEY\n"
