"""The grid number: known grids, noise and blobs, and its rate of false alarms on maps without a grid."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from nrmap.maps.grid import grid_excess, grid_excess_of_rows, smallest_side
from nrmap.support.errors import NrmapError

ROWS, COLUMNS = np.mgrid[:84, :84].astype(float)


def grid(period, height=84, width=84):
    rows, columns = np.mgrid[:height, :width]
    return ((rows % period == 0) & (columns % period == 0)).astype(float)


BLOB = np.exp(-((ROWS - 30) ** 2 + (COLUMNS - 40) ** 2) / (2 * 15**2))


def noise(seed, power=0.0):
    """A Gaussian map with energies as f^-power, cut from one twice as large so that it does not wrap around."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(168), np.fft.fftfreq(168)))
    frequency[0, 0] = 1
    white = np.fft.fft2(np.random.default_rng(seed).standard_normal((168, 168)))
    return np.fft.ifft2(white * frequency ** (-power / 2)).real[:84, :84]


def excess_as_a_loop(values, period, side, axis):
    """The definition, with the Fourier sums written out."""
    top, left = ((extent - side) // 2 for extent in values.shape)
    crop = values[top : top + side, left : left + side]
    crop = crop - crop.mean()
    if axis == 1:
        crop = crop.T

    def energy(index):
        wave = np.exp(-2j * math.pi * index * np.arange(side) / side)
        return sum(abs((wave * column).sum()) ** 2 for column in crop.T)

    multiples = [k * side // period for k in range(1, period // 2 + 1)]
    around = [sum(energy(m + step) + energy(m - step) for step in (1, 2, 3)) / 6 for m in multiples]
    return sum(map(energy, multiples)), sum(around)


@pytest.mark.parametrize("period", [4, 7, 8])
def test_the_definition(period):
    values, side = noise(0, power=1.5) + 3 * grid(8), (84 // period - 1) * period
    found = grid_excess(values, period=period, draws=5)
    (vertical, around_v), (horizontal, around_h) = (excess_as_a_loop(values, period, side, axis) for axis in (0, 1))
    expected = vertical / around_v, horizontal / around_h, (vertical + horizontal) / (around_v + around_h)
    assert (found.vertical, found.horizontal, found.value) == pytest.approx(expected)


@pytest.mark.parametrize(("period", "offset"), [(4, (0, 0)), (8, (3, 5))])
def test_a_pure_grid_is_all_excess(period, offset):
    with warnings.catch_warnings(action="error"):
        found = grid_excess(grid(period, 100, 140)[offset[0] :, offset[1] :][:84], draws=39)
    assert min(found.value, found.vertical, found.horizontal) > 1e6
    assert found.p_value == 1 / 40
    assert found.null_quantiles[2] < 2
    assert found.crop_quantiles[0] > 1e6


def test_quantiles_are_those_of_white_noise_and_of_all_crops():
    spike = np.zeros((16, 16))
    spike[7, 8] = 1  # has equal energies at all frequencies, as white noise on average
    null = grid_excess(spike, period=2, draws=999).null_quantiles
    # Of 2 · 14 rows and columns the energies at one frequency, over those at three on either side.
    assert stats.f.cdf(null, 2 * 14, 12 * 14) == pytest.approx([0.05, 0.5, 0.95], abs=0.05)
    values, numbers = noise(5)[:16, :40], []
    for y, x in np.ndindex(3, 27):
        window = values[y : y + 14, x : x + 14]
        at_grid, around = np.sum([excess_as_a_loop(window, 2, 14, axis) for axis in (0, 1)], axis=0)
        numbers.append(at_grid / around)
    found = grid_excess(values, period=2, draws=999).crop_quantiles
    assert [np.mean(np.array(numbers) <= each) for each in found] == pytest.approx([0.05, 0.5, 0.95], abs=0.05)


def test_lines_a_faint_grid_in_noise_and_a_grid_within_an_outline():
    lines = grid_excess((ROWS % 8 < 2) + 0.1 * noise(1), draws=1)
    assert lines.vertical > 100
    assert lines.horizontal == pytest.approx(1, abs=0.3)
    found = grid_excess(noise(2) + 2 * grid(8))
    assert found.value > 1.3
    assert found.p_value == 1 / 200
    outlined = grid_excess(grid(4) * BLOB)
    assert outlined.value > outlined.null_quantiles[2] > 1
    assert outlined.p_value < 0.02
    assert outlined.crop_quantiles[0] > outlined.null_quantiles[2]


@pytest.mark.parametrize("period", [6.4, 7, 9, 11])
def test_stripes_of_another_period_are_no_grid(period):
    # Freeway's lanes are 16 of 210 pixels apart, 6.4 of 84.
    found = grid_excess((ROWS % period < 1.5) + 0.02 * noise(3), draws=59)
    assert found.vertical < 2
    assert found.p_value > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("power", [0, 1, 2, 3, 4, None])
def test_false_alarms_are_rare(power):
    rng = np.random.default_rng(0)
    spikes = np.where(rng.random((150, 84, 84)) < 0.01, rng.standard_normal((150, 84, 84)) ** 2, 0.0)
    maps = spikes if power is None else (noise(seed, power) for seed in range(150))
    assert np.mean([grid_excess(map_, draws=39).p_value <= 0.05 for map_ in maps]) < 0.09


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e300])
def test_the_scale_and_the_level_do_not_matter(scale):
    values = noise(4) + grid(8)
    expected = grid_excess(values, draws=1).value
    for other in (scale * values, values + 50):
        assert grid_excess(other, draws=1).value == pytest.approx(expected)


def test_rows_have_the_numbers_of_their_maps():
    maps = np.stack([noise(6), np.full((84, 84), 0.3), grid(8) + BLOB, np.zeros((84, 84))])
    found = grid_excess_of_rows(maps)
    assert found[[0, 2]] == pytest.approx([grid_excess(map_, draws=1).value for map_ in maps[[0, 2]]])
    assert np.isnan(found[[1, 3]]).all()
    assert grid_excess(maps[1]) is grid_excess(maps[3] - 7e9) is None
    assert grid_excess(noise(0)[: smallest_side()], draws=1).value > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grid_excess(np.zeros((2, 84, 84))), r"expected \[H, W\]"),
        (lambda: grid_excess(np.full((84, 84), np.nan)), "NaN or infinite"),
        (lambda: grid_excess(noise(0)[:63]), "a 63×84 map is too small"),
        (lambda: grid_excess_of_rows(np.zeros((2, 84, 63))), "a 84×63 map is too small"),
        (lambda: grid_excess(noise(0), period=1), "period 1"),
        (lambda: grid_excess(noise(0), draws=0), "draws 0"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(NrmapError, match=message):
        call()
