"""Heat maps, maps over the game, and the pictures of the gallery: what is drawn is what was measured."""

import io

import matplotlib as mpl
import numpy as np
import pytest
from example_outputs import Example, made_up_maps, synthetic_states
from PIL import Image

from analyze.report.figures import screen_of
from analyze.report.gallery import MapSet, end_text, gallery, map_png
from nrmap.maps.heatmaps import KINDS, draw_map, draw_overlay
from nrmap.play.rollout import replay_rgb

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_heat_map_shows_the_map_on_its_own_scale_with_a_colour_bar(ax, kind):
    map_ = RNG.normal(3, 1, (6, 8))
    draw_map(ax, map_, kind=kind, title="a map")
    (image,) = ax.get_images()
    np.testing.assert_array_equal(image.get_array(), map_)
    largest = np.abs(map_).max()
    assert image.get_clim() == ((-largest, largest) if KINDS[kind].signed else (map_.min(), map_.max()))
    _, bar = ax.figure.axes
    assert bar.get_ylabel() == KINDS[kind].unit
    assert ax.get_title() == "a map"


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_of_zeros_says_so_in_the_colour_of_0_and_with_no_other_number(ax, kind):
    draw_map(ax, np.zeros((3, 3)), kind=kind, title="")
    assert [text.get_text() for text in ax.texts] == ["0 everywhere"]
    (image,) = ax.get_images()
    assert image.norm(0.0) == (0.5 if KINDS[kind].signed else 0.0)
    _, bar = ax.figure.axes
    assert list(bar.get_yticks()) == [0]


@pytest.mark.parametrize("kind", ["kmap", "kl", "margin_drop"])
def test_an_overlay_covers_the_screen_and_hides_more_where_the_map_is_larger(ax, kind):
    screen = RNG.integers(0, 256, (210, 160, 3)).astype(np.uint8)
    map_ = np.zeros((84, 84))
    map_[10, 20], map_[50, 60] = 1.0, 4.0
    draw_overlay(ax, screen, map_, kind=kind, title="")
    below, above = ax.get_images()
    assert tuple(below.get_extent()) == tuple(above.get_extent()) == (0, 160, 210, 0)
    alpha = above.get_alpha()
    assert alpha[0, 0] == 0
    assert 0 < alpha[10, 20] < alpha[50, 60] <= 1
    np.testing.assert_array_equal(above.get_array(), map_)


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
    sets = [MapSet("ddqn", 0, "own", total, tmp_path), MapSet("sa_ddqn", 1, "own", total, tmp_path)]
    html = gallery(sets, "kmap", None)
    assert html.count("S undefined: the map is 0 everywhere") >= 2
    assert html.count("not measured") == 2
    assert html.count("<img") == 2


def test_the_ends_of_a_colour_bar_can_be_told_apart():
    assert end_text(34.900339, 0.000002) != end_text(34.900341, 0.000002)
    assert end_text(0.0, 1.0) == "0"
    assert end_text(0.123456, 0.123456) == "0.123"
