"""The entry points' command line: choices by name, errors on one line."""

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from conf.choices import read_option
from conf.entry import _check_choices
from nrmap.support.errors import NrmapError


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("env=MsPackman", "MsPacman"),
        ("env=freeway", "Freeway"),
        ("env=Freeway,Pongg", "Pong"),
        ("method=sa_dqn", "sa_ddqn"),
        ("scale=quik", "quick"),
    ],
)
def test_an_unknown_choice_names_the_nearest(argument: str, named: str) -> None:
    with pytest.raises(NrmapError, match=f"did you mean .*{named}"):
        _check_choices([argument])


@pytest.mark.parametrize("argument", ["env=glob(Space*)", "env=Freeway,Pong", "seed=0", "env.frame_stack=4", "-m"])
def test_what_hydra_understands_is_left_to_it(argument: str) -> None:
    # Only what stands behind it is complained of.
    with pytest.raises(NrmapError, match="unknown scale 'quik'"):
        _check_choices([argument, "scale=quik"])


def test_read_option_gives_the_yaml_and_refuses_unknown_names() -> None:
    with initialize_config_module("conf", version_base="1.3"):
        config = OmegaConf.to_container(compose("train", ["scale=quick", "scale.robust_loss.pgd.kappa=0.25"]))
    assert read_option("method", "sa_ddqn", config)["regulariser"]["kappa"] == 0.25
    with pytest.raises(NrmapError, match="unknown method 'dqn'"):
        read_option("method", "dqn", config)
