"""Schedules against closed forms; many a well-known implementation gets these wrong."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nrmap.learning.exploration import ExplorationSpec
from nrmap.learning.schedules import Linear, Ramp


@given(
    initial=st.floats(0, 1), final=st.floats(0, 1), begin=st.integers(0, 500), duration=st.integers(1, 500),
    step=st.integers(0, 1500),
)  # fmt: skip
def test_linear_is_an_interpolation(initial, final, begin, duration, step):
    schedule = Linear(initial, final, begin, duration)
    expected = np.interp(step, [begin, begin + duration], [initial, final])
    assert schedule(step) == pytest.approx(expected, abs=1e-12)


def test_smooth_ramp_is_continuous_in_value_and_slope():
    ramp = Ramp(begin=1_000, duration=10**8)
    joint = 1_000 + 10**8 // 4
    assert ramp(joint - 1) == pytest.approx(ramp(joint + 1), rel=1e-6)

    def slope(step: int) -> float:
        return (ramp(step + 1000) - ramp(step - 1000)) / 2000

    assert slope(joint - 2000) == pytest.approx(slope(joint + 2000), rel=1e-3)
    assert slope(2001) < 1e-3 * slope(joint + 2000)  # leaves 0 flat
    # The straight part is straight, and ends at `final`.
    last = 1_000 + 10**8
    assert slope(joint + 2000) == pytest.approx(slope(last - 2000), rel=1e-6)
    assert ramp(last - 1) == pytest.approx(1.0, rel=1e-6)


@given(begin=st.integers(0, 1000), duration=st.integers(1, 1000))
def test_smooth_ramp_grows_from_zero_to_one(begin, duration):
    ramp = Ramp(begin, duration)
    values = np.array([ramp(step) for step in range(begin + duration + 2)])
    assert (np.diff(values) >= 0).all()
    assert (values[: begin + 1] == 0).all()
    assert values[begin + duration] == values[-1] == values.max() == 1


def test_geometric_ramp_gives_equal_times_to_equal_factors():
    ramp = Ramp(begin=100, duration=4, initial=1e-4)
    assert [ramp(step) for step in (101, 102, 103)] == pytest.approx([1e-3, 1e-2, 0.1])
    assert [ramp(step) for step in (0, 100, 104, 10**9)] == [0, 0, 1, 1]
    assert Ramp(0, 10**9, 1e-4)(1) == pytest.approx(1e-4)  # it leaves 0 at its initial fraction


@pytest.mark.parametrize("initial", [0.0, 1e-3])
def test_either_the_radius_or_kappa_grows(tiny_regulariser, initial):
    ramp = Ramp(5, 20, initial)
    sizes = {"kappa": 0.05, "attack_epsilon": 0.05}
    spec = tiny_regulariser(**sizes, ramp_begin=5, ramp_steps=20, ramp_initial=initial, ramp_of="radius")
    for step in (0, 5, 6, 12, 24, 25, 1000):
        assert spec.at(step) == pytest.approx((0.05, 0.05 * ramp(step)))
        assert replace(spec, ramp_of="kappa").at(step) == pytest.approx((0.05 * ramp(step), 0.05 if step > 5 else 0))


@given(epsilon=st.floats(0, 1), num_envs=st.integers(1, 16), spread=st.floats(0, 7), step=st.integers(0, 10**7))
def test_epsilon_of_every_environment(epsilon, num_envs, spread, step):
    spec = ExplorationSpec(1.0, epsilon, decay_steps=1000, env_spread=spread, max_repeat=1)
    now = 1 + (epsilon - 1) * min(step / 1000, 1)
    expected = [now ** (1 + spread * i / (num_envs - 1)) if num_envs > 1 else now for i in range(num_envs)]
    epsilons = spec.epsilons(step, num_envs)
    assert epsilons == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert (np.diff(epsilons) <= 1e-15).all()
