"""The panels of the dashboard ask for what runs log, by its very names: any other would stay empty."""

from functools import partial

import pytest
import torch
from dashboards import TEMPERATURES, panels_of, specification
from swept_maps import sweep

from analyze.workspace import DEFAULT_ATTACKS
from conf.choices import group_options, read_option
from nrmap.maps.measures import map_records
from nrmap.maps.null_networks import CONTROL_KINDS
from nrmap.play.evaluation import WORST_CASE
from nrmap.support.records import Record
from nrmap.support.tracking import summary_name
from train.curves import Curves
from train.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning")


@pytest.fixture
def serialised():
    """With the attacks that `python -m analyze.workspace` takes."""
    return specification(attacks=DEFAULT_ATTACKS)


def test_training_panels_ask_for_what_trainings_log(serialised, tiny_settings, tiny_regulariser):
    bounds = tiny_regulariser(solver="ibp", pgd_steps=0, pgd_step_fraction=0.0)
    device, settings = torch.device("cpu"), tiny_settings(regulariser=tiny_regulariser())
    attacked = Trainer(settings, device=device)
    anchored = Trainer(
        tiny_settings(regulariser=bounds, parent=settings, anchor=1.0),
        device=device,
        initial=attacked.learner.online,
    )
    logged: set[str] = set()
    for trainer in (attacked, anchored):
        curves = Curves()
        for iteration in trainer.run():
            curves.record(iteration)
        logged |= curves.add_row(trainer.agent_step, trainer.metrics()).keys()
    drawn = {panel["metrics"][0] for panel in panels_of(serialised)["Training"].values()}
    assert drawn <= logged


def names_asked(serialised, section):
    """The metrics of every panel of `section`."""
    return {name for panel in panels_of(serialised)[section].values() for name in panel.get("metrics") or []}


# The list of scale=smoke has every kind of roll-out once, for tests; the dashboard is for results.
@pytest.mark.parametrize("option", sorted(set(group_options("evaluation")) - {"smoke"}))
def test_play_panels_ask_for_what_evaluations_measure(serialised, option):
    evaluation = read_option("evaluation", option, {})
    runs = [(run["attack"], run["attack_epsilon"]) for run in evaluation["attack_runs"]]
    worst = {run for run in runs if run[0] == WORST_CASE}
    compared = {(attack.name, attack.epsilon) for attack in DEFAULT_ATTACKS}
    # An attack that this evaluation does not run would be a panel without a bar.
    assert compared <= set(runs) - worst
    assert names_asked(serialised, "Returns and attacks") == {
        summary_name("return_mean", attack="clean"),
        *(summary_name("return_mean", attack=name, attack_epsilon=radius) for name, radius in compared | worst),
        *(summary_name("flip_rate", attack=name, attack_epsilon=radius) for name, radius in compared),
        *(
            summary_name("certified_rate", attack="clean", attack_epsilon=radius)
            for radius in evaluation["certify_epsilons"]
        ),
    }


def test_map_panels_ask_for_what_is_measured_on_maps(serialised):
    drawn = torch.randn(2, 72, 72, 3, generator=torch.Generator().manual_seed(0))
    maps = sweep(drawn, drawn[:, 0, 0], [0, 1], temperatures=TEMPERATURES)
    records = map_records(maps, partial(Record, "Freeway", "ddqn", 0, states_from="own"))
    # What is undefined, or one of several parts, is not told: see _is_headline of analyze/__main__.py.
    headlines = [record for record in records if not record.is_part and record.value is not None]
    told = {summary_name(record.metric_key, temperature=record.temperature) for record in headlines}
    sparsities = {name for name in told if "_sparsity" in name}
    assert len(sparsities) == 2 + 2 * len(TEMPERATURES)
    assert names_asked(serialised, "Sparsity S = ‖M‖₁ / ‖M‖₂ (eq. 9)") == sparsities
    asked = names_asked(serialised, "Controls and the grid")
    of_agents = {name for name in asked if not name.startswith(CONTROL_KINDS)}
    assert of_agents == sparsities | {name for name in told if "_grid_excess" in name}


def test_no_other_section_asks_for_a_number(serialised):
    panels = panels_of(serialised)
    assert {name for name in panels if names_asked(serialised, name)} == {
        "Training",
        "Returns and attacks",
        "Sparsity S = ‖M‖₁ / ‖M‖₂ (eq. 9)",
        "Controls and the grid",
    }
    columns = serialised["spec"]["section"]["runSets"][0]["runFeed"]["columnPinned"]
    pinned = {name.partition(":")[2] for name in columns if name.startswith("summary:")}
    assert len(pinned) > 5
    assert pinned <= {name for section in panels for name in names_asked(serialised, section)}
