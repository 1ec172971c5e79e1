"""The Atari games of the installed ale-py and their ALE names.

ale-py is imported when a game is looked up, so that `import nrmap` is quick.
"""

import functools
import re

from nrmap.support.errors import unknown_choice

# Two-player games without a single-player reward; gymnasium registers no ALE id for them.
WITHOUT_SINGLE_PLAYER = frozenset({"combat", "joust", "maze_craze", "warlords"})


@functools.cache
def game_names() -> tuple[str, ...]:
    """All playable games in CamelCase, sorted: `AirRaid`, …, `Freeway`, …, `Zaxxon`."""
    from ale_py import roms

    rom_ids = set(roms.get_all_rom_ids()) - WITHOUT_SINGLE_PLAYER
    return tuple(sorted(camel_case(rom_id) for rom_id in rom_ids))


def camel_case(rom_id: str) -> str:
    """The game's name for a ROM id: `bank_heist` → `BankHeist`."""
    return "".join(part.title() for part in rom_id.split("_"))


def game_named(name: str) -> str:
    """Return the game `Freeway` for `freeway`, `ALE/Freeway-v5`, `Freeway-v5` or `FreewayNoFrameskip-v4`.

    Raises NrmapError with similar names for an unknown game.
    """
    bare = re.sub(r"^ALE/|((NoFrameskip|Deterministic)?-v\d+)$", "", name)
    by_letters = {game.lower(): game for game in game_names()}
    if (game := by_letters.get(bare.replace("_", "").lower())) is None:
        raise unknown_choice("game", name, game_names())
    return game


def rom_id(game: str) -> str:
    """The ROM id, such as `bank_heist`, of a game in any spelling that `game_named` takes.

    Raises NrmapError with similar names for an unknown game.
    """
    from ale_py import roms

    by_name = {camel_case(rom): rom for rom in roms.get_all_rom_ids()}
    return by_name[game_named(game)]
