"""Policies are found by what they are, and a missing one is named with what there is."""

from dataclasses import replace

import pytest

from nrmap.errors import NrmapError
from nrmap.layout import POLICY_FILE, Layout
from nrmap.learning.lookup import reference_policy, trained_policy


def test_a_reference_policy_is_found_by_game_method_and_seed_whatever_its_settings(tmp_path, tiny_settings):
    layout = Layout(tmp_path)
    settings = replace(tiny_settings(), method="sa_ddqn", seed=2)
    game = settings.env.game
    path = tmp_path / "reference" / game / "sa_ddqn" / "seed2" / POLICY_FILE
    path.parent.mkdir(parents=True)
    path.touch()
    assert reference_policy(settings, layout) == path
    assert reference_policy(replace(settings, steps=settings.steps + 1), layout) == path
    with pytest.raises(NrmapError, match=f"unknown reference policy '{game}/sa_ddqn/seed3': did you mean .*seed2"):
        reference_policy(replace(settings, seed=3), layout)


def test_a_policy_that_was_not_trained_is_asked_for(tmp_path, tiny_settings):
    with pytest.raises(NrmapError, match=r"no trained policy .* train it with the same options"):
        trained_policy(tiny_settings(), Layout(tmp_path))
