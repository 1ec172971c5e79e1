"""Names of games equal those of ALE's environment ids."""

import ale_py
import gymnasium
import numpy as np
import pytest

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import SeededVectorEnv
from nrmap.atari.games import game_names


def test_the_games_are_those_that_gymnasium_registers() -> None:
    gymnasium.register_envs(ale_py)
    registered = {name[len("ALE/") : -len("-v5")] for name in gymnasium.registry if name.startswith("ALE/")}
    assert set(game_names()) == {name for name in registered if not name.endswith("-ram")}
    assert len(game_names()) == 104


@pytest.mark.slow
@pytest.mark.parametrize("game", game_names())
def test_every_game_is_played(game: str) -> None:
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    alone = ale_py.ALEInterface()
    alone.loadROM(ale_py.roms.get_rom_path(gymnasium.spec(f"ALE/{game}-v5").kwargs["game"]))
    env = SeededVectorEnv(EnvSpec(game, 84, 84), 2)
    assert env.action_names == tuple(action.name for action in alone.getMinimalActionSet())
    assert env.num_actions > 1
    states, lives = env.begin(np.ones(2, dtype=bool), [7, 7])
    first, generator = states.copy(), np.random.default_rng(0)
    assert lives[0] == lives[1]
    # Some games wait before they begin: the screen has to move within the first hundred steps.
    for _ in range(100):
        moved = env.step(np.repeat(generator.integers(env.num_actions), 2))
        # An episode is its seed and its actions.
        assert np.array_equal(moved.states[0], moved.states[1])
        assert moved.rewards[0] == moved.rewards[1]
        if not np.array_equal(moved.states, first) and moved.states.max() > moved.states.min():
            return
        assert not moved.ended.any()
    pytest.fail("the screen never moved")
