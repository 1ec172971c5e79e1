"""Every analysis and every launcher that options can name composes, and has the numbers of its YAML files."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import Any

import pytest
from composed import analysis, composed
from hydra import compose, initialize_config_module
from hydra.utils import get_class
from omegaconf import OmegaConf

from conf.choices import group_options
from conf.schema import AnalyzeKeys, TrainKeys
from conf.train_settings import train_settings
from nrmap.support.schema import validated

SCALES = group_options("scale")


def in_file(group: str, option: str) -> Mapping[str, Any]:
    """The content of the YAML file, without any composition."""
    content = OmegaConf.to_container(OmegaConf.load(str(resources.files("conf") / group / f"{option}.yaml")))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


# None: what an analysis has that does not ask for any.
@pytest.mark.parametrize(
    ("scale", "evaluation"),
    [*((scale, None) for scale in SCALES), *(("smoke", evaluation) for evaluation in group_options("evaluation"))],
)
def test_every_evaluation_and_that_of_every_scale(scale: str, evaluation: str | None) -> None:
    settings = analysis(f"scale={scale}", *([f"evaluation={evaluation}"] if evaluation else []))
    expected = in_file("evaluation", evaluation or scale)
    assert settings.evaluation.episodes == expected["episodes"]
    assert [asdict(run) for run in settings.evaluation.attack_runs] == expected["attack_runs"]
    assert list(settings.evaluation.certify_epsilons) == expected["certify_epsilons"]
    sizes = in_file("scale", scale)["analysis"]
    assert (settings.states.num_states, settings.states.episodes) == (sizes["num_states"], sizes["state_episodes"])
    assert list(settings.maps.prefix_sizes) == [*sizes["prefix_sizes"], sizes["num_states"]]
    assert (settings.states.states_from, settings.maps.temperatures, settings.controls) == ("own", (1.0,), 0)


def test_single_settings_of_an_analysis() -> None:
    for scale in SCALES:
        controls = in_file("scale", scale)["analysis"]["controls"]
        assert analysis(f"scale={scale}", "states_from=pool").controls == controls >= 1
    assert analysis("states_from=some/states.npz").controls == analysis("states_from=pool").controls
    assert analysis("controls=7").controls == 7
    assert analysis("temperature=2").maps.temperatures == (2.0,)
    assert analysis("temperature=[1,0.1,1]").maps.temperatures == (0.1, 1.0)


@pytest.mark.parametrize(
    ("method", "scale"),
    [*((method, "quick") for method in group_options("method")), *(("sa_ddqn", scale) for scale in SCALES)],
)
def test_an_analysis_looks_for_the_policy_that_the_same_options_train(method: str, scale: str) -> None:
    options = (f"method={method}", f"scale={scale}", "env=Pong", "seed=3")
    analyzed = train_settings(validated(AnalyzeKeys, composed("analyze", *options)))
    assert analyzed == train_settings(validated(TrainKeys, composed("train", *options)))


@pytest.mark.parametrize(("launcher", "plugin"), [("joblib", "joblib"), ("slurm", "submitit"), ("ray", "ray")])
@pytest.mark.parametrize("name", ["train", "analyze"])
def test_every_launcher_composes_and_is_one_of_its_plugin(name: str, launcher: str, plugin: str) -> None:
    plugin = f"hydra_plugins.hydra_{plugin}_launcher"
    if launcher != "ray":  # whose file builds on none of the plugin's
        pytest.importorskip(plugin)
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(name, [f"hydra/launcher={launcher}", "outputs=/somewhere"], return_hydra_config=True)
    found = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert isinstance(found, dict)
    assert launcher in ("ray", "joblib") or found["submitit_folder"].startswith(f"/somewhere/logs/{name}/")
    if launcher in group_options("hydra/launcher"):
        for key, value in in_file("hydra/launcher", launcher).items():
            assert key == "defaults" or found[key] == value
    pytest.importorskip(plugin)
    assert get_class(found["_target_"]).__name__.endswith("Launcher")
