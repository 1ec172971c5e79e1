"""States as files: the sample, and what brings back every frame of its episodes, without pickling."""

import json
import zipfile
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nrmap.atari.envs import EnvSpec
from nrmap.play.rollout import Episode
from nrmap.play.states import RolloutStates, SourcePolicy
from nrmap.support.errors import NrmapError, check
from nrmap.support.files import atomic_path

FORMAT_VERSION = 1

# What a states file holds besides its metadata: the type and the number of dimensions of each array.
# The actions and rewards of all E episodes lie end to end; `episode_lengths` cuts them apart.
ARRAYS = {
    "states": (np.uint8, 4),
    "episode_ids": (np.int64, 1),
    "positions": (np.int64, 1),
    "episode_origins": (np.int64, 1),
    "episode_seeds": (np.int64, 1),
    "episode_lengths": (np.int64, 1),
    "episode_terminated": (np.bool_, 1),
    "episode_truncated": (np.bool_, 1),
    "episode_actions": (np.uint8, 1),
    "episode_rewards": (np.float32, 1),
}


def save_states(path: Path, states: RolloutStates) -> None:
    """Write a states file atomically; equal states give equal bytes."""
    episodes = states.episodes
    arrays = {
        "states": states.states,
        "episode_ids": states.episode_ids,
        "positions": states.positions,
        "episode_origins": states.episode_origins,
        "episode_seeds": [episode.seed for episode in episodes],
        "episode_lengths": [episode.length for episode in episodes],
        "episode_terminated": [episode.terminated for episode in episodes],
        "episode_truncated": [episode.truncated for episode in episodes],
        "episode_actions": np.concatenate([episode.actions for episode in episodes]),
        "episode_rewards": np.concatenate([episode.rewards for episode in episodes]),
    }
    metadata = {
        "format": FORMAT_VERSION,
        "env": asdict(states.env),
        "origins": [asdict(origin) for origin in states.origins],
    }
    typed: dict[str, Any] = {name: np.asarray(arrays[name], dtype=dtype) for name, (dtype, _) in ARRAYS.items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, nrmap_states=json.dumps(metadata, sort_keys=True), **typed)


def load_states(path: Path) -> RolloutStates:
    """The states in `path`.

    Raises NrmapError when the file is missing, truncated, not a states file of this format, or
    when an array is missing, of another type or shape, or contradicts another.
    """
    check(path.is_file(), f"no states file {path}")
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            content = {name: loaded[name] for name in loaded.files}
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise NrmapError(f"{path} is not a readable states file: {error}") from error
    check("nrmap_states" in content, f"{path} is an npz file but not a states file: it has no 'nrmap_states' entry")
    try:
        metadata = json.loads(str(content["nrmap_states"]))
        version = metadata.get("format")
    except (ValueError, AttributeError) as error:
        raise NrmapError(f"{path} is damaged: what it says of its states is not readable ({error})") from error
    check(version == FORMAT_VERSION, f"{path} has states format {version!r}: expected {FORMAT_VERSION}")
    for name, (dtype, ndim) in ARRAYS.items():
        check(name in content, f"{path} has no array {name!r}")
        found = content[name]
        check(
            found.dtype == dtype and found.ndim == ndim,
            f"{path}: {name} is {found.dtype} with {found.ndim} dimensions: expected {np.dtype(dtype)} with {ndim}",
        )
    try:
        return RolloutStates(
            env=EnvSpec(**metadata["env"]),
            origins=tuple(SourcePolicy(**origin) for origin in metadata["origins"]),
            episodes=_episodes_of(content),
            episode_origins=content["episode_origins"],
            states=content["states"],
            episode_ids=content["episode_ids"],
            positions=content["positions"],
        )
    except (NrmapError, KeyError, TypeError) as error:
        raise NrmapError(f"{path}: {error}") from error


def _episodes_of(content: dict[str, NDArray[Any]]) -> tuple[Episode, ...]:
    lengths = content["episode_lengths"]
    check(len(lengths) >= 1 and bool((lengths >= 1).all()), "expected at least one episode, none of them empty")
    for name in ("episode_seeds", "episode_terminated", "episode_truncated"):
        check(
            len(content[name]) == len(lengths), f"{name} has {len(content[name])} entries for {len(lengths)} episodes"
        )
    for name in ("episode_actions", "episode_rewards"):
        check(len(content[name]) == lengths.sum(), f"{name} has {len(content[name])} entries for {lengths.sum()} steps")
    cuts = np.cumsum(lengths)[:-1]
    return tuple(
        Episode(int(seed), actions, rewards, bool(terminated), bool(truncated))
        for seed, actions, rewards, terminated, truncated in zip(
            content["episode_seeds"],
            np.split(content["episode_actions"], cuts),
            np.split(content["episode_rewards"], cuts),
            content["episode_terminated"],
            content["episode_truncated"],
            strict=True,
        )
    )
