"""The settings of an analysis, from the configuration, and what is said of a value that is wrong."""

import math
from typing import Any

import pytest

from analyze.settings import analysis_settings
from nrmap.play.evaluation import AttackRun
from nrmap.support.errors import NrmapError


def config(**changes: Any) -> dict[str, Any]:
    sizes = {
        "num_states": 8,
        "state_episodes": 2,
        "prefix_sizes": [4, 8],
        "controls": 1,
    }
    evaluation = {
        "episodes": 2,
        "certify_epsilons": [0.01],
        "attack_runs": [{"attack": "fgsm", "attack_epsilon": 0.01, "episodes": 1}],
    }
    values = {
        "temperature": 1.0,
        "states_from": "own",
        "evaluation_seed": 0,
        "controls": 2,
        "ablated_value": 0,
        "channels": "all",
        "evaluation": {**evaluation, **changes.pop("evaluation", {})},
        "scale": {"analysis": {**sizes, **changes.pop("sizes", {})}},
    }
    return {**values, **changes}


def test_settings_come_from_the_configuration() -> None:
    settings = analysis_settings(config(temperature=[1, 0.1, 1]))
    assert settings.maps.temperatures == (0.1, 1.0)
    assert settings.maps.prefix_sizes == (4, 8)
    assert settings.evaluation.attack_runs == (AttackRun("fgsm", 0.01, 1),)
    assert settings.evaluation.certify_epsilons == (0.01,)
    assert settings.controls == 2


@pytest.mark.parametrize(("states_from", "draws"), [("own", 0), ("pool", 7), ("some.npz", 7)])
def test_controls_are_drawn_by_themselves_where_states_are_shared(states_from: str, draws: int) -> None:
    values = config(controls="auto", states_from=states_from, sizes={"controls": 7})
    assert analysis_settings(values).controls == draws


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, r"temperature=0\.0: expected a finite number > 0"),
        ({"temperature": [1.0, -2]}, r"temperature=-2\.0: expected a finite number > 0"),
        ({"temperature": math.inf}, "temperature=inf: expected a finite number > 0"),
        ({"states_from": None}, "states_from=None: expected a word"),
        ({"evaluation_seed": "x"}, "evaluation_seed='x': expected a whole number"),
        ({"sizes": {"num_states": "many"}}, "num_states='many': expected a whole number"),
        ({"sizes": {"prefix_sizes": 16}}, "prefix_sizes=16: expected a list"),
        ({"sizes": {"prefix_sizes": [0]}}, "prefix_sizes: 0, expected numbers of states, at least 1"),
        ({"temperature": "hot"}, "temperature='hot': expected a number > 0"),
        ({"sizes": {"num_states": 0}}, "num_states=0: expected at least 1"),
        ({"evaluation": {"episodes": 0}}, "episodes=0: expected at least 1"),
        ({"evaluation": {"episodse": 3}}, "unknown key of evaluation 'episodse': did you mean episodes"),
        ({"evaluation": {"attack_runs": [{"attack": "pdg-10", "attack_epsilon": 0.01, "episodes": 1}]}}, "pdg-10"),
        ({"evaluation": {"certify_epsilons": ["1/255"]}}, "certify_epsilons: '1/255', expected a radius"),
        ({"evaluation": {"certify_epsilons": [3]}}, r"attack_epsilon=3\.0: expected 0 < ε ≤ 1"),
        ({"controls": -1}, "controls=-1: expected at least 0"),
        ({"controls": "many"}, "controls='many': expected a whole number, or auto"),
    ],
)
def test_a_value_out_of_range_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NrmapError, match=message):
        analysis_settings(config(**changes))
