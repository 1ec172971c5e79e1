"""Heat maps, alone and over the game: the drawn values are the measured ones."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from nrmap.maps.episode_maps import TotalMaps
from nrmap.maps.heatmaps import MOST_COLUMNS, draw_map, draw_overlay, map_figures
from nrmap.maps.kinds import KINDS

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_heat_map_shows_the_map_on_its_own_scale_with_a_colour_bar(ax, kind):
    map_, signed = RNG.normal(3, 1, (6, 8)), KINDS[kind].signed
    draw_map(ax, map_, kind=kind, title="a map")
    (image,) = ax.get_images()
    np.testing.assert_array_equal(image.get_array(), map_)
    largest = np.abs(map_).max()
    assert image.get_clim() == ((-largest, largest) if signed else (map_.min(), map_.max()))
    assert ax.figure.axes[1].get_ylabel() == KINDS[kind].unit
    # A map of zeros says so in the colour of 0, with no other number.
    zeros = Figure().subplots()
    draw_map(zeros, np.zeros((3, 3)), kind=kind, title="")
    assert [text.get_text() for text in zeros.texts] == ["0 everywhere"]
    assert zeros.get_images()[0].norm(0.0) == (0.5 if signed else 0.0)
    assert list(zeros.figure.axes[1].get_yticks()) == [0]


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


def test_many_temperatures_are_several_figures_of_a_bounded_size():
    temperatures = tuple(np.geomspace(0.001, 10, 8))
    arrays = {name: RNG.random((8, 6, 8) if kind.by_temperature else (6, 8)) for name, kind in KINDS.items()}
    maps = TotalMaps(temperatures, arrays, 16)
    figures = list(map_figures(maps))
    drawn = [ax.get_title().split("\n")[0] for figure in figures for ax in figure.axes if ax.get_title()]
    assert len(drawn) == len(set(drawn)) == 3 + 2 * 8 > MOST_COLUMNS
    assert all(len(figure.axes) <= 2 * MOST_COLUMNS and max(figure.get_size_inches()) < 50 for figure in figures)
    assert len(list(maps.at(temperatures[3]).each())) == len(KINDS)
