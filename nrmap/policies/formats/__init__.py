"""Convert the policy files of other libraries into nrmap's own, one module per format; see docs/agents.md."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from nrmap.atari.env_spec import EnvSpec
from nrmap.atari.envs import action_names
from nrmap.atari.eyes import env_with_eyes
from nrmap.atari.games import game_named
from nrmap.policies.formats import cleanrl, pfrl, sa_dqn, sb3, tianshou
from nrmap.policies.formats.layers import ReadNetwork, build_network
from nrmap.policies.formats.reading import read_bytes
from nrmap.policies.policy import Policy, PolicyCard, PolicySource
from nrmap.support.errors import NrmapError, check, named, shortened, unknown_choice
from nrmap.support.files import identity_of
from nrmap.support.identity import recorded

# By the word before the colon in `policy=sb3:FILE`; RADIAL and CAR took over the layout of SA_DQN.
FORMATS: Mapping[str, Callable[[bytes], ReadNetwork]] = {
    "sb3": sb3.read,
    "sa_dqn": sa_dqn.read,
    "radial": sa_dqn.read,
    "car": sa_dqn.read,
    "cleanrl": cleanrl.read,
    "pfrl": pfrl.read,
    "tianshou": tianshou.read,
}

_ENV_SETTINGS = ("eyes", *(field.name for field in fields(EnvSpec) if field.name != "game"))


def convert(
    reference: str,
    *,
    game: str | None = None,
    seed: int | None = None,
    input_scale: float | None = None,
    env_settings: Mapping[str, Any] | None = None,
) -> Policy:
    """Convert the policy file that `reference` names, such as "sb3:FILE.zip", to a Policy in float32.

    `game` and `input_scale` are required if the file does not state them. `input_scale` is the factor from states in
    [0, 255] to the network's own input. `seed` only labels the policy; None takes the file's seed, or 0 if there is
    none. `env_settings` override fields of EnvSpec in the format's usual preprocessing. Their key `eyes` picks another
    preset. Swapped axes are folded into the weights, so the policy's environment has `transposed=False`.

    Raises NrmapError for an unknown format, game or setting. Raises NrmapError for a file that is missing or not of its
    format. Raises NrmapError for a network that nrmap cannot describe or that does not fit the game. Raises NrmapError
    for a fact that is missing, or that contradicts the file.
    """
    fits = env_settings is None or isinstance(env_settings, Mapping)
    check(fits, f"env_settings={shortened(env_settings)}: expected a dict of fields of EnvSpec")
    format_, colon, path = reference.partition(":")
    check(bool(colon and path), f"policy={shortened(reference)}: expected FORMAT:FILE, as in sb3:FILE.zip")
    if format_ not in FORMATS:
        raise unknown_choice("policy format", format_, FORMATS)
    data = read_bytes(Path(path))
    with named(f"{path} as {format_}: "):
        read = FORMATS[format_](data)
        seen, actions = _env(read, _game(read, game), dict(env_settings or {}))
        scale, env = _input_scale(read, input_scale), replace(seen, transposed=False)  # the weights are transposed
        network = build_network(
            read, actions=actions, sides=(env.height, env.width), input_scale=scale, transposed=seen.transposed
        )
    details = {"input_scale": scale, "transposed": seen.transposed}
    source = PolicySource(format_, hashlib.sha256(data).hexdigest(), details)
    card = PolicyCard(
        method="_".join(filter(None, (format_, read.algorithm))),
        seed=next((number for number in (seed, read.seed) if number is not None), 0),
        agent_steps=read.agent_steps,
        identity=identity_of({"stage": "import", "env": recorded(env), "source": asdict(source)}),
        source=source,
    )
    return Policy(network, env, card, outputs=read.keys.outputs)


def _game(read: ReadNetwork, given: str | None) -> str:
    """Return the game's name, given or from the file; NrmapError if none is known or they differ."""
    games = {game_named(name) for name in (given, read.game) if name}
    check(bool(games), "the file does not name its game: add env=GAME, as in env=Pong")
    check(len(games) == 1, f"env={given}: the file says {shortened(read.game)[1:-1]}")
    return games.pop()


def _env(read: ReadNetwork, game: str, settings: dict[str, Any]) -> tuple[EnvSpec, int]:
    """Return the policy's environment (its format's preset, then the file, then `settings`) and its number of actions.

    Removes `eyes` from `settings`. Raises NrmapError for unknown settings and for contradictions to the file.
    """
    stated: dict[str, Any] = {"frame_stack": read.in_channels}
    if read.sides:
        stated |= {"height": read.sides[0], "width": read.sides[1]}
    for name, value in stated.items():
        if settings.get(name, value) != value:
            raise NrmapError(f"env.{name}={shortened(settings[name])}: the file says {value}")
    for name in settings:
        if name not in _ENV_SETTINGS:
            raise unknown_choice("env setting", name, _ENV_SETTINGS)
    channels = read.in_channels
    greys = bool(channels % 3) or "frame_stack" in settings
    check(greys, f"states of {channels} channels: colours are not supported, for greys add env.frame_stack={channels}")
    eyes = settings.pop("eyes", read.eyes)
    env = env_with_eyes(game, eyes, **{**stated, **settings})
    # Some policies have another action set than the preset's: the size of the last layer shows which.
    if not {"first_actions", "full_action_space"} & settings.keys():
        sets = (env, *(replace(env, first_actions=0, full_action_space=full) for full in (False, True)))
        wanted = len(read.tensors[f"{read.keys.output}.weight"]) if read.actions is None else read.actions
        env = next((actions for actions in sets if len(action_names(actions)) == wanted), env)
    actions = len(action_names(env))
    check(read.actions in (None, actions), f"the file is for {read.actions} actions, {game} has {actions}")
    return env, actions


def _input_scale(read: ReadNetwork, given: float | None) -> float:
    """Return the factor from states in [0, 255] to the original's input.

    Raises NrmapError if the factor is unknown, unlike the file's, or no finite number above 0.
    """
    number = isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf
    check(given is None or number, f"input_scale={shortened(given)}: expected a finite number above 0")
    if read.input_scale is None:
        if given is None:
            raise NrmapError(
                "the file does not say how its states were scaled: add input_scale=1 if the network saw 0 to 255, "
                "or input_scale=1/255 if it saw 0 to 1"
            )
        return given
    fits = given is None or given == read.input_scale
    check(fits, f"input_scale={given}: this format scales by {read.input_scale:.6g}, which is not done twice")
    return read.input_scale
