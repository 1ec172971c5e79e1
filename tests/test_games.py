"""Games go by the names that ALE's environment ids have."""

import ale_py
import gymnasium
import pytest

from nrmap.errors import NrmapError
from nrmap.games import game_names, rom_id


def test_the_games_are_those_that_gymnasium_registers() -> None:
    gymnasium.register_envs(ale_py)
    registered = {name[len("ALE/") : -len("-v5")] for name in gymnasium.registry if name.startswith("ALE/")}
    assert set(game_names()) == {name for name in registered if not name.endswith("-ram")}
    assert len(game_names()) == 104


def test_rom_ids() -> None:
    assert rom_id("BankHeist") == "bank_heist"
    assert rom_id("TicTacToe3D") == "tic_tac_toe_3d"
    assert all(rom_id(game) for game in game_names())


@pytest.mark.parametrize(("wrong", "near"), [("Freway", "Freeway"), ("pong", "Pong"), ("MsPackman", "MsPacman")])
def test_an_unknown_game_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(NrmapError, match=f"unknown game '{wrong}': did you mean .*{near}"):
        rom_id(wrong)
