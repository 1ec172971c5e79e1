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
    """The DQN, with large or small convolutions, a shared last bias or dueling heads, or the A2C or PPO in `data`.

    Raises NrmapError for other networks and files.
    """
    tensors = tensors_of(load_torch(data))
    shared = tensors.pop("2.bias", None)
    if shared is not None and "1.bias" not in tensors and "1.weight" in tensors and shared.numel() == 1:
        tensors["1.bias"] = shared.expand(len(tensors["1.weight"]))  # SingleSharedBias of its Double DQN
    keys = matching(KEYS, tensors)
    return ReadNetwork("actor" if keys.outputs == "logits" else "dqn", tensors, keys, eyes="pfrl")
