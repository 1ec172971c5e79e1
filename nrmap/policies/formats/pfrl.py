"""PFRL's `model.pt`: the state dict of the networks of its Atari examples."""

from nrmap.policies.formats.layers import Keys, ReadNetwork, matching
from nrmap.policies.formats.reading import load_torch, tensors_of

_LARGE, _SMALL = (tuple(f"0.layers.{number}" for number in range(count)) for count in (3, 2))
KEYS = (
    Keys(_LARGE, "0.output", "1"),
    Keys(_SMALL, "0.output", "1"),
    Keys(
        tuple(f"conv_layers.{number}" for number in range(3)),
        "a_stream.hidden_layers.0", "a_stream.output", "v_stream.hidden_layers.0", "v_stream.output",
    ),
    Keys(("0", "2", "4"), "7", "9.child_modules.0.0", outputs="logits", unused=("9.child_modules.1.",)),
)  # fmt: skip


def read(data: bytes) -> ReadNetwork:
    """Read a PPO, whose outputs are logits, or a DQN.

    The network of a DQN may be large, small or dueling, or have one bias that all actions share. Raises NrmapError for
    another network or file.
    """
    tensors = tensors_of(load_torch(data))
    last, shared = tensors.get("1.weight"), tensors.get("2.bias")
    if last is not None and last.ndim and "1.bias" not in tensors and shared is not None and shared.numel() == 1:
        # PFRL's Double DQN has one bias for all actions (SingleSharedBias).
        tensors["1.bias"] = tensors.pop("2.bias").flatten().expand(len(last))
    keys = matching(KEYS, tensors)
    return ReadNetwork("ppo" if keys.outputs == "logits" else "dqn", tensors, keys, eyes="pfrl")
