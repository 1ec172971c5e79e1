"""SA_DQN (Zhang et al. 2020), and RADIAL and CAR, which took over its networks: a state dict of torch.

Their wrappers swap the axes of a screen, which is undone in the weights.
"""

from nrmap.policies.formats.layers import Keys, ReadNetwork, matching, without_prefix
from nrmap.policies.formats.reading import load_torch, tensors_of

KEYS = (
    Keys(("cnn.0", "cnn.2", "cnn.4"), "advantage.0", "advantage.2", "value.0", "value.2"),
    Keys(("0", "2", "4"), "7", "9"),
)


def read(data: bytes) -> ReadNetwork:
    """The dueling or plain network in a state dict, or in the `model_state_dict` of a RADIAL file.

    RADIAL's network returns value and advantage apart; their sum is the Q-value, as in its own evaluation.
    Raises NrmapError for other networks and files.
    """
    content = load_torch(data)
    tensors = without_prefix(tensors_of(content, "model_state_dict"), "features.", "model.", "module.")
    return ReadNetwork("", tensors, matching(KEYS, tensors), eyes="sa_dqn", agent_steps=content.get("step", 0))
