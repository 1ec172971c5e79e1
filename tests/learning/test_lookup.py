"""Policies are found by what they are, and a missing one is named with what there is."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from example_outputs import write_training

from nrmap.learning.lookup import reference_policy, trained_policy, training_folder
from nrmap.learning.settings import PolicyFile
from nrmap.policies.policy import Policy, PolicyCard, load_policy, save_policy
from nrmap.support.errors import NrmapError
from nrmap.support.layout import POLICY_FILE, Layout


def test_a_reference_policy_is_found_by_game_method_and_seed_whatever_its_settings(tmp_path, tiny_settings):
    layout = Layout(tmp_path)
    settings = replace(tiny_settings(), method="sa_ddqn", seed=2)
    game = settings.env.game
    path = tmp_path / "reference" / "quick" / game / "sa_ddqn" / "seed2" / POLICY_FILE
    path.parent.mkdir(parents=True)
    shutil.copy(write_training(Layout(tmp_path), settings), path)
    assert reference_policy(settings, layout, scale="quick") == path
    assert reference_policy(replace(settings, steps=settings.steps + 1), layout, scale="quick") == path
    with pytest.raises(NrmapError, match=f"policy 'quick/{game}/sa_ddqn/seed3': did you mean .*seed2"):
        reference_policy(replace(settings, seed=3), layout, scale="quick")
    shutil.copytree(path.parent, path.parents[1] / "seed3")
    with pytest.raises(NrmapError, match=rf"seed3/{POLICY_FILE} is of {game}/sa_ddqn/seed2: expected .*seed3$"):
        reference_policy(replace(settings, seed=3), layout, scale="quick")


def test_a_policy_that_is_missing_or_of_other_settings_is_refused(tmp_path, tiny_settings):
    layout = Layout(tmp_path)
    with pytest.raises(NrmapError, match=r"no trained policy .* train it with the same options"):
        trained_policy(tiny_settings(), layout)
    path, other = (write_training(layout, tiny_settings(method=method)) for method in ("ddqn", "sa_ddqn"))
    assert trained_policy(tiny_settings(method="ddqn"), layout) == path
    shutil.copy(other, path)
    with pytest.raises(NrmapError, match=f"^{path} is the policy of other settings, sa_ddqn seed 3; remove it to"):
        trained_policy(tiny_settings(method="ddqn"), layout)


@pytest.fixture
def start(tmp_path, tiny_settings) -> Path:
    """A policy file that fits the smallest settings."""
    return write_training(Layout(tmp_path / "elsewhere"), tiny_settings(seed=5))


def test_a_policy_that_started_from_a_file_is_found_by_what_the_file_holds(tmp_path, start, tiny_settings):
    layout = Layout(tmp_path)
    settings = tiny_settings(method="sa_ddqn", parent=PolicyFile(str(start)))
    parent = load_policy(start).sha256
    path = training_folder(settings, layout, parent) / POLICY_FILE
    path.parent.mkdir(parents=True)
    card = PolicyCard("sa_ddqn", 3, 120, settings.identity(parent), parent_sha256=parent)
    save_policy(path, Policy(load_policy(start).network, settings.env, card))
    assert trained_policy(settings, layout) == path
    elsewhere = start.rename(tmp_path / "elsewhere.safetensors")
    assert trained_policy(replace(settings, parent=PolicyFile(str(elsewhere))), layout) == path
    with pytest.raises(NrmapError, match=f"^no policy file {start}$"):
        trained_policy(settings, layout)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"env": {"game": "Pong"}}, "game=Freeway instead of Pong"),
        ({"env": {"sticky_actions": 0.25}}, "sticky_actions=0.0 instead of 0.25"),
        ({"env": {"frame_stack": 2}}, "in_channels=1 instead of 2, frame_stack=1 instead of 2"),
        ({"dueling": False}, "dueling=True instead of False"),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_what_differs(changes, difference, tmp_path, start, tiny_settings):
    settings = tiny_settings(method="sa_ddqn", parent=PolicyFile(str(start)), **changes)
    with pytest.raises(NrmapError) as caught:
        trained_policy(settings, Layout(tmp_path))
    assert str(caught.value) == f"cannot start from {start}: Freeway/ddqn/seed5 has {difference}"
