"""The pictures of the gallery and the screen under an overlay."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from example_outputs import Example, made_up_maps, synthetic_states
from PIL import Image

from analyze.report.figures import screen_of
from analyze.report.gallery import MapSet, end_text, map_groups, map_png
from analyze.report.names import PolicyName, StatesName
from nrmap.maps.kinds import KINDS
from nrmap.play.rollout import replay_rgb

RNG = np.random.default_rng(0)


def test_the_screen_under_an_overlay_is_one_of_the_states(policy):
    states = synthetic_states(policy, Example(num_states=32))
    episode = states.episodes[0]
    positions = states.positions[states.episode_ids == 0]
    np.testing.assert_array_equal(
        screen_of(states), replay_rgb(policy.env, episode.seed, episode.actions, [positions[1]])[0]
    )


@pytest.mark.parametrize("kind", ["kmap", "margin_drop"])
def test_pictures_in_the_gallery_have_a_dot_for_every_pixel_in_the_colours_of_the_map(kind):
    map_ = RNG.normal(0, 1, (12, 9)) ** 2
    picture = np.asarray(Image.open(io.BytesIO(map_png(map_, kind))).convert("RGB"))
    low, high = (map_.min(), map_.max()) if kind == "kmap" else (-map_.max(), map_.max())
    expected = mpl.colormaps[KINDS[kind].colours]((map_ - low) / (high - low))[..., :3] * 255
    assert picture.shape == (12, 9, 3)
    np.testing.assert_allclose(picture, expected, atol=3)


def test_the_gallery_says_what_is_undefined_and_what_is_missing(policy, tmp_path):
    example = Example(without_flips=(("ddqn", 0),))
    total = made_up_maps(policy, example, "own").total()
    agents = (("ddqn", 0), ("sa_ddqn", 1))
    sets = [MapSet(PolicyName(method, seed=seed), StatesName("own"), total, tmp_path) for method, seed in agents]
    (group,) = map_groups(sets, 1.0)
    assert [gallery.title for gallery in group.galleries] == [
        "Figure 1. KMAP  K(i, j)", "Figure 2. HMAP  H(i, j), T = 1", "KL map  KL(i, j), T = 1",
        "Margin-drop map  Δm(i, j), white at 0", "Flip map  F(i, j)",
    ]  # fmt: skip
    kmaps = group.galleries[0]
    assert [[len(cards) for cards in cells] for _, cells in kmaps.rows] == [[1, 0], [0, 1]], "two were not measured"
    values = [card.value for _, cells in kmaps.rows for cards in cells for card in cards]
    assert all(value.startswith("S undefined: the map is 0 everywhere") for value in values)


def test_the_ends_of_a_colour_bar_can_be_told_apart():
    assert end_text(34.900339, 0.000002) != end_text(34.900341, 0.000002)
    assert end_text(0.0, 1.0) == "0"
    assert end_text(0.123456, 0.123456) == "0.123"
