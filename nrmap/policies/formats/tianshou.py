"""tianshou: the state dict of a policy or algorithm with one of its Atari networks.

Its Atari wrappers scale states to [0, 1] only on request, and the file does not state it: give `input_scale`.
"""

from nrmap.policies.formats.layers import Keys, ReadNetwork, matching
from nrmap.policies.formats.reading import load_torch, tensors_of

_CNN = tuple(f"net.0.{number}" for number in (0, 2, 4)), "net.1", "net.3"
_FLAT = tuple(f"net.{number}" for number in (0, 2, 4)), "net.7", "net.9"  # the same layers without nesting
# A DQN is a QR-DQN of one quantile.
QUANTILES = [Keys(*names, head="quantiles_by_action") for names in (_CNN, _FLAT)]
CATEGORICAL = [Keys(*names, head="categorical") for names in (_CNN, _FLAT)]
ALL_ACTIONS = 18  # of ALE
# Prefixes of the acting network in versions 0.4 to 2.
_PREFIXES = ("model.", "policy.model.", "_policy.model.", "module.")


def read(data: bytes) -> ReadNetwork:
    """Read a DQN, QR-DQN or C51 that `torch.save(policy.state_dict())` wrote.

    The outputs of a C51 are its expected returns. Raises NrmapError for another file, and for another network, such as
    Rainbow's, whose layers are noisy.
    """
    tensors = tensors_of(load_torch(data), "model")
    support = next((tensor for name, tensor in tensors.items() if name.rpartition(".")[2] == "support"), None)
    acting = next((prefix for prefix in _PREFIXES if any(name.startswith(f"{prefix}net.") for name in tensors)), "")
    acting_tensors = {name.removeprefix(acting): tensor for name, tensor in tensors.items() if name.startswith(acting)}
    keys = matching(QUANTILES if support is None else CATEGORICAL, acting_tensors)
    several = len(acting_tensors[f"{keys.output}.weight"]) > ALL_ACTIONS
    algorithm = "c51" if support is not None else "qrdqn" if several else "dqn"
    return ReadNetwork(algorithm, acting_tensors, keys, eyes="tianshou", input_scale=None, atom_values=support)
