"""The specification of the dashboard as W&B would get it, taken apart."""

import json

import pytest

from analyze.workspace import Attack, study_workspace

TEMPERATURES = (0.1, 1.0, 10.0)


def specification(**options):
    """The specification that would be sent to W&B; `options` are those of study_workspace."""
    pytest.importorskip("wandb_workspaces")
    given = {"temperatures": TEMPERATURES, "attacks": [Attack("pgd-10", 1 / 255)], **options}
    study = study_workspace(entity="team", project="tried", **given)
    return json.loads(study._to_model().model_dump_json(by_alias=True))


def panels_of(serialised):
    """The configuration of every panel by section and title."""
    sections = serialised["spec"]["section"]["panelBankConfig"]["sections"]
    return {
        section["name"]: {panel["config"].get("chartTitle"): panel["config"] for panel in section["panels"]}
        for section in sections
    }
