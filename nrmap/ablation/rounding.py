"""Estimate the rounding error of ablated Q-values."""

import math

import torch
from torch import Tensor

from nrmap.ablation.parts import NetworkParts
from nrmap.ablation.spec import AblationSpec
from nrmap.policies.agent import usual_actions
from nrmap.support.errors import check

SAMPLES = 4
ABLATIONS_PER_SAMPLE = 32
# Factor on the largest error in a sample, which misses the largest of all.
SAFETY = 4
# Assumed error in units of eps·max|Q|, if there is no float64 network to measure against.
ASSUMED_ERROR = 4


def agrees(found: Tensor, expected: Tensor, roundings: int = 1) -> bool:
    """Return whether the Q-values [N, A] differ by at most `roundings`·1e-5·max(1, max|Q|).

    Only `usual_actions` of `expected` are compared. The result is True if `expected` has NaN or infinite values,
    because `check_finite` raises a clearer error later.
    """
    if not expected.isfinite().all():
        return True  # `check_finite` raises the clearer error later
    usual = usual_actions(expected)
    found, expected = found[:, usual], expected[:, usual]
    return bool((found - expected).abs().max() <= roundings * 1e-5 * max(1.0, float(expected.abs().max())))


def synthetic_states(state_shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """Make four fixed uint8 states [4, C, H, W] of flat squares in random grey levels; two of them also have noise."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = state_shape
    side = max(1, min(height, width) // 8)
    blocks = SAMPLES, channels, height // side + 1, width // side + 1
    squares = torch.randint(256, blocks, generator=generator, device="cpu")
    states = squares.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
    noise = torch.randint(-40, 41, (SAMPLES, *state_shape), generator=generator, device="cpu")
    noise[::2] = 0
    return (states + noise).clamp(0, 255).to(device, torch.uint8)


def sampled_ablations(spec: AblationSpec, state_shape: tuple[int, int, int]) -> Tensor:
    """Return the flat indices, int64 [n], of n evenly spaced ablations of a state; see `ablate_pixels`."""
    last = spec.ablated_shape(state_shape).numel() - 1
    return torch.linspace(0, last, ABLATIONS_PER_SAMPLE, dtype=torch.float32, device="cpu").long()


@torch.inference_mode()
def rounding_floor(
    clean: Tensor,
    ablated: Tensor,
    exact: NetworkParts | None,
    spec: AblationSpec,
    states: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Return `SAFETY` times the largest rounding error of an ablation's change in Q, rounded up to a power of two.

    `clean` [N, A] and `ablated` [N, n, A] are an engine's Q-values for `states`, uint8 [N, C, H, W], and for their
    `sampled_ablations`. The error is measured against `exact`, the network in float64, and counts as at least
    eps·max|Q|, with float32's eps. If `exact` is None, the error is taken to be `ASSUMED_ERROR`·eps·max|Q|, with the
    eps of the agent's output type `dtype` if that is larger. Only `usual_actions` count. The result is 0.0 where the
    error is 0, as for Q-values that are all 0. Raises NrmapError for NaN or infinite Q-values.
    """
    finite = bool(clean.isfinite().all() and ablated.isfinite().all())
    check(finite, "the agent cannot be mapped: its outputs for some states are NaN or infinite")
    usual = usual_actions(ablated)
    clean, ablated = clean[..., usual], ablated[..., usual]
    eps = torch.finfo(torch.float32).eps
    unit = eps * float(ablated.abs().max())
    if exact is None:
        error = ASSUMED_ERROR * unit * max(torch.finfo(dtype).eps / eps, 1.0)
    else:
        copies = [ablate_pixels(state, sampled_ablations(spec, tuple(state.shape)), spec) for state in states]
        exact_ablated = torch.stack([exact.q_values(batch) for batch in copies])  # [N, n, A]
        exact_change = (exact_ablated - exact.q_values(states)[:, None])[..., usual]
        error = max(unit, float((ablated.double() - clean.double()[:, None] - exact_change).abs().max()))
    return 2.0 ** math.ceil(math.log2(SAFETY * error)) if error else 0.0


def ablate_pixels(state: Tensor, numbers: Tensor, spec: AblationSpec) -> Tensor:
    """Return n ablated copies [n, C, H, W] of `state` [C, H, W].

    `numbers` [n] are flat indices into the ablations of a state, an array of shape `spec.ablated_shape`.
    """
    copies = state.repeat(len(numbers), 1, 1, 1)
    rows = torch.arange(len(numbers), device=state.device)
    if spec.channels == "each":
        copies.view(len(numbers), -1)[rows, numbers] = spec.value
    else:
        copies.view(*copies.shape[:2], -1)[rows, :, numbers] = spec.value
    return copies
