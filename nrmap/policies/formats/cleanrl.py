"""CleanRL's `.cleanrl_model` files and checkpoints: state dicts of dqn_atari, ppo_atari and c51_atari."""

from typing import Any

import torch

from nrmap.policies.formats.layers import Keys, ReadNetwork, matching
from nrmap.policies.formats.reading import load_torch, tensors_of
from nrmap.support.errors import NrmapError

_CNN = tuple(f"network.{number}" for number in (0, 2, 4))
KEYS = {
    "ppo": Keys(_CNN, "network.7", "actor", outputs="logits", unused=("critic.",)),
    "dqn": Keys(_CNN, "network.7", "network.9"),
    "c51": Keys(_CNN, "network.7", "network.9", head="categorical", unused=("atoms",)),
}


def read(data: bytes) -> ReadNetwork:
    """Read a state dict, or a file that holds one under `model_weights`, beside the script's `args`.

    A file with `args` gives game, seed, agent steps and the atoms of a C51. Outputs are the logits of a PPO, the
    Q-values of a DQN and the expected returns of a C51. Raises NrmapError for another network or file.
    """
    content = load_torch(data)
    args: dict[Any, Any] = content.get("args", {}) if isinstance(content.get("args"), dict) else {}
    tensors = tensors_of(content, "model_weights")
    atoms = tensors.get("atoms")
    if atoms is None and "n_atoms" in args:
        try:
            atoms = torch.linspace(float(args["v_min"]), float(args["v_max"]), min(int(args["n_atoms"]), 10_000))
        except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise NrmapError("its args have no numbers v_min, v_max and n_atoms") from error
    keys = matching([KEYS["ppo"], KEYS["dqn"]] if atoms is None else [KEYS["c51"]], tensors)
    return ReadNetwork(
        next(name for name, table in KEYS.items() if table is keys),
        tensors,
        keys,
        eyes="cleanrl",
        game=args.get("env_id"),
        seed=args.get("seed"),
        agent_steps=args.get("total_timesteps", 0),
        atom_values=atoms,
    )
