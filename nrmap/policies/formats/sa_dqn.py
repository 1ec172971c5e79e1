"""Files of SA_DQN (Zhang et al. 2020), and of RADIAL and CAR, which use its networks: state dicts of torch.

Their wrappers swap the axes of a screen. `build_network` swaps the axes of the weights back.
"""

from nrmap.policies.formats.layers import Keys, ReadNetwork, matching, without_prefix
from nrmap.policies.formats.reading import load_torch, tensors_of

KEYS = (
    Keys(("cnn.0", "cnn.2", "cnn.4"), "advantage.0", "advantage.2", "value.0", "value.2"),
    Keys(("0", "2", "4"), "7", "9"),
)


def read(data: bytes) -> ReadNetwork:
    """Read a dueling or plain network from a state dict, or from the `model_state_dict` of a RADIAL file.

    RADIAL's network returns V and A − mean_a A separately. Their sum is the Q-value, as in RADIAL's own evaluation.
    Raises NrmapError for another network or file.
    """
    content = load_torch(data)
    tensors = without_prefix(tensors_of(content, "model_state_dict"), "features.", "model.", "module.")
    return ReadNetwork("", tensors, matching(KEYS, tensors), eyes="sa_dqn", agent_steps=content.get("step", 0))
