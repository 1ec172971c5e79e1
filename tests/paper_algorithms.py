"""Eq. 4 to 6 of the paper and the other kinds of maps, as plain loops over states and pixels."""

import math

import numpy as np


def first_arg_max(values):
    return max(range(len(values)), key=lambda index: (values[index], -index))


def softmax(values, temperature):
    weights = [math.exp((value - max(values)) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def algorithms_1_and_2(network, states, temperature, value=0):
    """Every kind of map of `states`, by name, by one loop over states and two over pixels; "ties" counts near ones."""
    q = lambda state: network(state[None])[0].tolist()  # noqa: E731
    height, width = states.shape[-2:]
    maps = {name: np.zeros((height, width)) for name in ("kmap", "hmap", "kl", "margin_drop", "flip_map", "ties")}
    for state in states:
        q_values = q(state)
        best = first_arg_max(q_values)
        policy = softmax(q_values, temperature)
        margin = q_values[best] - max(value for action, value in enumerate(q_values) if action != best)
        for i in range(height):
            for j in range(width):
                augmented = state.clone()
                augmented[:, i, j] = value
                q_augmented = q(augmented)
                chosen = first_arg_max(q_augmented)
                maps["kmap"][i, j] += q_values[best] - q_values[chosen]
                maps["flip_map"][i, j] += chosen != best
                pairs = [pair for pair in zip(policy, softmax(q_augmented, temperature), strict=True) if pair[0] > 0]
                maps["hmap"][i, j] += -sum(p * math.log(p_augmented) for p, p_augmented in pairs)
                maps["kl"][i, j] += sum(p * (math.log(p) - math.log(p_augmented)) for p, p_augmented in pairs)
                others = max(value for action, value in enumerate(q_augmented) if action != best)
                maps["margin_drop"][i, j] += margin - (q_augmented[best] - others)
                maps["ties"][i, j] += abs(q_augmented[best] - others) < 1e-5
    return maps
