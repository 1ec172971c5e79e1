"""Algorithms 1 and 2 of the paper, written as they are printed: plain loops over states and pixels."""

import math

import numpy as np


def first_arg_max(values):
    return max(range(len(values)), key=lambda index: (values[index], -index))


def softmax(values, temperature):
    weights = [math.exp((value - max(values)) / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def algorithms_1_and_2(network, states, temperature):
    """K, H, the KL map and the margin-drop map of `states` by one loop over states and two over pixels."""
    q = lambda state: network(state[None])[0].tolist()  # noqa: E731
    height, width = states.shape[-2:]
    k, h, kl, drop = ([[0.0] * width for _ in range(height)] for _ in range(4))
    for state in states:
        q_values = q(state)
        best = first_arg_max(q_values)
        policy = softmax(q_values, temperature)
        margin = q_values[best] - max(value for action, value in enumerate(q_values) if action != best)
        for i in range(height):
            for j in range(width):
                augmented = state.clone()
                augmented[:, i, j] = 0
                q_augmented = q(augmented)
                k[i][j] += q_values[best] - q_values[first_arg_max(q_augmented)]
                log_policy = [math.log(p) for p in softmax(q_augmented, temperature)]
                h[i][j] += -sum(p * log_p for p, log_p in zip(policy, log_policy, strict=True))
                kl[i][j] += sum(p * (math.log(p) - log_p) for p, log_p in zip(policy, log_policy, strict=True))
                drop[i][j] += margin - (q_augmented[best] - max(v for a, v in enumerate(q_augmented) if a != best))
    return tuple(np.array(values) for values in (k, h, kl, drop))
