"""The dashboard in code: it is saved, or one line says why not. test_tracked_commands compares it with runs."""

import json
import re
import sys

import pytest
import wandb
from wandb_files import forget_account
from wandb_server import server_with_account

from analyze import workspace
from nrmap.support.tracking import summary_name

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


def test_summary_names_are_distinct_and_wandb_can_sort_by_them():
    numbers = (1e-5, 0.1, 1.0, 10.0, 1e5)
    names = [
        summary_name("kmap_sparsity"),
        *(summary_name("return_mean", attack=attack) for attack in ("clean", "constant:UP")),
        *(summary_name("hmap_sparsity", temperature=number) for number in numbers),
        *(summary_name("flip_rate", attack="pgd-10", attack_epsilon=number) for number in numbers),
    ]
    assert len({name.lower() for name in names}) == len(names)
    # The rule of W&B's documentation, "Metric naming constraints".
    assert all(re.fullmatch("[_a-zA-Z][_a-zA-Z0-9]*", name) for name in names)
    assert summary_name("hmap_sparsity", temperature=0.01) == "hmap_sparsity_T0p01"


def test_the_saved_view_has_the_panels_and_groups(monkeypatch, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")
    with server_with_account(monkeypatch, tmp_path) as server:
        workspace.main(["--entity", "team", "--project", "tried", "--temperatures", "0.1", "10"])
        assert capsys.readouterr().out == f"{server.url}/team/tried?nw=saved\n"
    (sent,) = server.views
    assert (sent["entityName"], sent["projectName"], sent["displayName"]) == ("team", "tried", workspace.NAME)
    section = json.loads(sent["spec"])["section"]
    (runs,) = section["runSets"]
    groups = [(group["section"], group["name"]) for group in runs["grouping"]]
    assert groups == [("config", "game.value"), ("config", "method.value")]
    panels = [panel["config"] for part in section["panelBankConfig"]["sections"] for panel in part["panels"]]
    shown = {name for panel in panels for name in panel.get("metrics") or ()}
    assert shown >= {"kmap_sparsity", "hmap_sparsity_T0p1", "shuffled_weights_kl_grid_excess_T10", "recent_mean_return"}


def test_a_view_that_cannot_be_saved_is_one_line(monkeypatch, tmp_path, capsys):
    pytest.importorskip("wandb_workspaces")

    def refused(*arguments):
        with pytest.raises(SystemExit):
            workspace.main(["--entity", "team", *arguments])
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "temperature=nan: expected a finite number > 0" in refused("--temperatures", "1", "nan")
    with server_with_account(monkeypatch, tmp_path) as server:
        server.refuses = 401
        assert refused().startswith("error: W&B did not save the workspace: ")
    forget_account(monkeypatch, tmp_path)
    wandb.teardown()
    assert refused().startswith("error: no W&B API key: ")
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert refused().startswith("error: wandb-workspaces is not installed")
