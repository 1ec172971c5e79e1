"""How much of a change in Q may be nothing but rounding."""

import math

import torch
from torch import Tensor

from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.spec import AblationSpec, Engine

EPS = torch.finfo(torch.float32).eps
SAMPLES = 4
ABLATIONS_PER_SAMPLE = 32
# An error that a sample happens to show is not the largest there is.
SAFETY = 4
# What stands for the measured error where there is no float64 network to measure against, in units of eps·max|Q|.
ASSUMED_ERROR = 4


def agrees(found: Tensor, expected: Tensor) -> bool:
    """Whether two sets of Q-values are equal but for rounding: within 1e-5·max(1, max|Q|)."""
    if not expected.isfinite().all():
        return True  # refused elsewhere, and by a clearer name
    return bool((found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max())))


def made_up_states(state_shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """A few uint8 states, always the same ones: flat squares of random grey levels, half of them under noise."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = state_shape
    side = max(1, min(height, width) // 8)
    squares = torch.randint(256, (SAMPLES, channels, height // side + 1, width // side + 1), generator=generator)
    states = squares.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
    noise = torch.randint(-40, 41, (SAMPLES, *state_shape), generator=generator)
    noise[::2] = 0
    return (states + noise).clamp(0, 255).to(device, torch.uint8)


@torch.inference_mode()
def measured_floor(engine: Engine, exact: NetworkParts | None, spec: AblationSpec, states: Tensor) -> float:
    """A power of two that is at least SAFETY times the largest rounding error in ΔQ found on `states`.

    The error is measured on evenly spaced ablations against `exact`, the network in float64, or
    without one assumed, and is taken to be at least eps·max|Q|.
    """
    largest_error = largest_q = 0.0
    for chunk in engine.ablate(states):
        own = states[chunk.start : chunk.start + len(chunk.q_values)]
        q_values = chunk.q_values.flatten(1, -2)  # [n, ablations, A]
        largest_q = max(largest_q, float(q_values.abs().max()))
        if exact is None:
            continue
        picked = torch.linspace(0, q_values.shape[1] - 1, ABLATIONS_PER_SAMPLE).long()
        for state, clean, ablated in zip(own, chunk.clean_q_values, q_values, strict=True):
            copies = ablate_pixels(state, picked, spec)
            exact_change = exact.q_values(copies) - exact.q_values(state[None])
            found_change = ablated[picked].double() - clean.double()
            largest_error = max(largest_error, float((found_change - exact_change.cpu()).abs().max()))
    error = max(largest_error, EPS * largest_q * (ASSUMED_ERROR if exact is None else 1))
    return 2.0 ** math.ceil(math.log2(SAFETY * error)) if error else 0.0


def ablate_pixels(state: Tensor, numbers: Tensor, spec: AblationSpec) -> Tensor:
    """Copies [n, C, H, W] of `state` [C, H, W], each with one of its ablations.

    `numbers` [n] index the ablations of a state, [H, W] or [C, H, W], made flat.
    """
    copies = state.repeat(len(numbers), 1, 1, 1)
    rows = torch.arange(len(numbers), device=state.device)
    if spec.channels == "each":
        copies.view(len(numbers), -1)[rows, numbers] = spec.value
    else:
        copies.view(*copies.shape[:2], -1)[rows, :, numbers] = spec.value
    return copies
