"""The learning curve: rows where they are due, episodes in order, one curve over all parts of a run."""

import pytest

from train.collector import FinishedEpisode
from train.curves import Curves
from train.trainer import Iteration


def iteration(agent_step: int, *returns: float) -> Iteration:
    return Iteration(agent_step, [FinishedEpisode(env, value, 10) for env, value in enumerate(returns)])


def test_episodes_and_their_recent_mean():
    curves = Curves()
    assert (curves.recent_mean_return(), curves.describe()) == (None, "no episode ended yet")
    for step in range(30):
        curves.record(iteration(8 + step, float(step)))
    assert curves.episodes[0] == {"agent_step": 8, "env": 0, "undiscounted_return": 0.0, "length": 10}
    assert (curves.recent_mean_return(), curves.describe()) == (sum(range(10, 30)) / 20, "return 19.5")


def test_a_row_is_due_once_for_every_two_thousand_steps():
    curves, due = Curves(), []
    for agent_step in range(16, 10_001, 16):
        if curves.row_is_due(agent_step):
            due.append(agent_step)
            curves.add_row(agent_step, {"loss": 1.0})
    assert due == [2000, 4000, 6000, 8000, 10_000]
    assert [row["agent_step"] for row in curves.rows] == due
    assert "recent_mean_return" not in curves.rows[-1]


def test_rows_count_the_steps_since_the_last_one(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("train.curves.time.monotonic", lambda: now[0])
    curves = Curves()
    now[0] = 110.0
    assert curves.add_row(2_000, {"loss": 0.5})["steps_per_second"] == pytest.approx(200)
    now[0] = 115.0
    curves.record(iteration(2_100, 3.0))
    expected = {"agent_step": 4_000, "seconds": 15.0, "steps_per_second": 400.0, "episodes": 1, "loss": 0.25}
    assert curves.add_row(4_000, {"loss": 0.25}) == {**expected, "recent_mean_return": 3.0}
    state = curves.get_state()
    now[0] = 1_000.0  # a later process, whose clock says something else
    again = Curves.from_state(state)
    now[0] = 1_002.0
    assert (state["seconds"], again.seconds) == (15.0, pytest.approx(17.0))
    assert (again.rows, again.episodes) == (curves.rows, curves.episodes)
