"""Rules about recorded operations: which treat each state on its own, which are affine, which are layers."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from nrmap.ablation.geometry import Axis
from nrmap.ablation.parts import Convolution
from nrmap.ablation.recording import Call, NotTraceable, Value, to_double

COPIES = frozenset({"clone", "alias", "detach", "to_copy"})
RESHAPES = frozenset({"view", "unsafe_view", "reshape", "reshape_alias"})
# They move numbers along a given dimension, not the first one (states), and compute nothing.
_MOVES = frozenset({"unsqueeze", "squeeze", "select", "slice", "split", "split_with_sizes", "unbind", "cat", "stack"})
_SUMS = frozenset({"mean", "sum"})
_REDUCTIONS = frozenset({"amax", "amin", "logsumexp", "softmax", "log_softmax", "max", "min", "var", "std"})
MOVES = COPIES | RESHAPES | _MOVES | {"permute", "transpose", "expand"}
PRODUCTS = frozenset({"mm", "addmm", "mv"})
KEEP_ZERO = frozenset({"relu", "mul", "div"})
Padding = tuple[int, int, int, int]  # left, right, top, bottom
NO_PADDING: Padding = (0, 0, 0, 0)
Shapes = Mapping[Value, torch.Size]


def treats_states_apart(call: Call, shapes: Shapes, states: int) -> bool:
    """Return whether `call` is known to compute each state's rows of its results from that state's rows of its inputs.

    Rows are entries of dimension 0. Each of the N = `states` states has equally many consecutive rows.
    """
    inputs, results = ([shapes[value] for value in values] for values in (call.inputs, call.results))
    dimensions = len(inputs[0])
    if call.name in RESHAPES:
        return len(results[0]) > 0 and results[0][0] % states == 0
    if call.name == "expand":
        return len(results[0]) == dimensions and results[0][0] == inputs[0][0]
    if call.name == "permute":
        return bool(call.argument("dims")[0] == 0)
    if call.name == "transpose":
        return 0 not in (call.argument("dim0") % dimensions, call.argument("dim1") % dimensions)
    if call.name in PRODUCTS:
        return matrix_of(call) is not None
    if call.name in _MOVES | _SUMS | _REDUCTIONS:
        dims = call.argument("dim")
        dims = dims if isinstance(dims, list) else [] if dims is None else [dims]
        dimensions += call.name in ("unsqueeze", "stack")
        unchanged = call.name == "slice" and results == inputs
        return not call.constants and bool(dims) and (unchanged or all(dim % dimensions for dim in dims))
    if call.name in COPIES:
        return True
    rows = inputs[0][0]
    broadcast = all(each.ndim < dimensions or (each.ndim == dimensions and len(each) == 1) for each in call.constants)
    return is_pointwise(call) and broadcast and all((len(each), each[0]) == (dimensions, rows) for each in inputs)


def is_pointwise(call: Call) -> bool:
    """Return whether each number of the result is known to depend only on the numbers at its position in the inputs."""
    return torch.Tag.pointwise in call.operation.tags


def is_affine(call: Call) -> bool:
    """Return whether the results are known to be an affine function of all inputs that depend on the states."""
    if call.name == "mul":
        return len(call.inputs) == 1
    if call.name == "div":
        return call.inputs == [call.arguments[0]] and call.argument("rounding_mode") is None
    return call.name in MOVES | _SUMS | PRODUCTS | {"add", "sub", "rsub", "neg"}


def matrix_of(call: Call) -> tuple[Tensor, Tensor | None] | None:
    """Return the weight and the bias of a `call` that multiplies rows [N, K] by a constant; None for any other call.

    The weight is [K, U] for `mm` and `addmm`, and [K] for `mv`. The bias, added to every product, is that of `addmm`,
    expanded to [U], and None for the other two. A product with a factor `alpha` or `beta` other than 1 gives None, and
    so does a bias that differs between rows.
    """
    plain = call.argument("alpha") in (None, 1) and call.argument("beta") in (None, 1)
    rows = {"addmm": 1, "mm": 0, "mv": 0}.get(call.name)
    if rows is None or call.inputs != [call.arguments[rows]] or not plain:
        return None
    weight, bias = call.arguments[rows + 1], call.argument("self") if rows else None
    if bias is None:
        return weight, None
    return (weight, bias.flatten().expand(weight.shape[1:])) if bias.shape[:-1].numel() == 1 else None


def padding_of(call: Call) -> Padding | None:
    """Return the numbers of zeros (left, right, top, bottom) that `call` adds around a map; None for any other call."""
    if call.name != "constant_pad_nd" or call.argument("value") != 0:
        return None
    left, right, top, bottom, *others = (*call.argument("pad"), 0, 0)[: max(4, len(call.argument("pad")))]
    return None if min(left, right, top, bottom) < 0 or any(others) else (left, right, top, bottom)


def convolution_of(call: Call, padded: Padding) -> Convolution:
    """Convert `call` to a `Convolution` without a ReLU, with float32 copies of the weights.

    `padded` are the zeros that earlier calls have put around the input. A convolution in groups becomes one with zero
    weights between the groups. Raises NotTraceable unless `call` is a two-dimensional convolution with constant float32
    or float64 weights.
    """
    weight, bias, groups = call.argument("weight"), call.argument("bias"), call.argument("groups")
    if call.argument("transposed") or not isinstance(weight, Tensor) or weight.ndim != 4 or isinstance(bias, Value):
        raise NotTraceable("only two-dimensional convolutions with constant weights are supported")
    if weight.dtype not in (torch.float32, torch.float64):
        raise NotTraceable(f"it computes in {weight.dtype}")
    weight = frozen_float32(weight)  # [O, I / groups, KH, KW]
    kernel, before, after = weight.shape[2:], (padded[2], padded[0]), (padded[3], padded[1])
    vertical, horizontal = (
        Axis(
            kernel[i], call.argument("stride")[i], before[i] + padding, after[i] + padding, call.argument("dilation")[i]
        )
        for i, padding in enumerate(call.argument("padding"))
    )
    outputs, inputs = len(weight) // groups, weight.shape[1]
    dense = weight.new_zeros(len(weight), inputs * groups, *kernel)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return Convolution(dense, bias_or_zeros(bias, dense), vertical, horizontal, relu=False)


def channel_scaling(call: Call, channels: int) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift, float64 [O] each, of a `call` that maps each channel x of a map to scale·x + shift.

    Such calls are batch normalisation in evaluation mode and arithmetic with constants. Any other call gives None. O is
    `channels`.
    """
    normalises = "batch_norm" in call.name and not call.argument("training")
    same_for_all = all(each.ndim < 4 or len(each) == 1 for each in call.constants)
    if len(call.inputs) != 1 or not same_for_all or not (normalises or (is_pointwise(call) and is_affine(call))):
        return None
    probe = torch.tensor([0.0, 1.0], dtype=torch.float64, device="cpu").view(2, 1, 1, 1).repeat(1, channels, 1, 1)
    probed = probe.to(call.constants[0].device if call.constants else "cpu")
    result = call.map_constants(to_double)(lambda _: probed)[0]
    if result.shape != probe.shape:
        return None
    at_zero, at_one = result.flatten(1)  # [O] each
    return at_one - at_zero, at_zero


def for_any_batch(call: Call, shapes: Shapes) -> Call:
    """Return `call` with sizes for any number of states in place of the recorded number."""
    shape = shapes[call.results[0]]
    if call.name in RESHAPES:
        return replace(
            call, operation=torch.ops.aten.reshape.default, arguments=(call.inputs[0], [-1, *shape[1:]]), options={}
        )
    if call.name == "expand":
        return replace(call, arguments=(call.inputs[0], [-1, *shape[1:]]), options={})
    return call


def bias_or_zeros(bias: Tensor | None, weight: Tensor) -> Tensor:
    """Return a float32 copy of the bias of a layer with `weight` [O, …], or zeros [O] if `bias` is None."""
    return weight.new_zeros(len(weight)) if bias is None else frozen_float32(bias)


def frozen_float32(parameter: Tensor) -> Tensor:
    """Return a float32 copy of the current values of `parameter`."""
    return parameter.detach().to(torch.float32, copy=True).contiguous()
