"""Common names for the operations of a traced network, whether modules, functions or methods."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from nrmap.ablation.geometry import Axis
from nrmap.ablation.parts import Convolution


class NotTraceable(Exception):  # noqa: N818 (not an error: the dense engine takes over)
    """The incremental engine does not support this policy; the message gives the reason."""


_MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv", nn.ReLU: "relu", nn.Flatten: "flatten", nn.Linear: "linear",
    nn.Identity: "identity", nn.Dropout: "dropout", nn.Dropout2d: "dropout",
}  # fmt: skip
_FUNCTIONS: dict[Callable[..., Any], str] = {
    torch.relu: "relu", functional.relu: "relu", torch.flatten: "flatten", torch.cat: "cat", torch.mean: "mean",
    torch.add: "add", torch.sub: "sub", torch.mul: "mul", torch.div: "div", torch.neg: "neg", torch.sum: "sum",
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div", operator.neg: "neg",
    operator.iadd: "add", operator.isub: "sub", operator.imul: "mul", operator.itruediv: "div",
    operator.getitem: "getitem", getattr: "getattr",
}  # fmt: skip
_METHODS = {
    **{name: name for name in ("relu", "flatten", "mean", "sum", "add", "sub", "mul", "div", "neg", "size")},
    **{f"{name}_": name for name in ("relu", "add", "sub", "mul", "div", "neg")},
    **dict.fromkeys(("float", "to", "type", "contiguous", "clone"), "cast"),
    **dict.fromkeys(("view", "reshape"), "reshape"),
}
ELEMENTWISE = frozenset({"cast", "identity", "add", "sub", "mul", "div", "neg"})
ROW_BY_ROW = ELEMENTWISE | {"linear", "mean", "sum", "cat", "getitem"}


def operation_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> str:
    """The name of the operation of `node`. Raises NotTraceable for an unknown one."""
    name: str | None
    if node.op == "call_module":
        module = modules[str(node.target)]
        name, what = _MODULES.get(type(module)), f"layer {node.target} ({type(module).__name__})"
        if name == "dropout":
            name, what = (None if module.training else "identity"), f"{what} in training mode"
    elif callable(node.target):
        name, what = _FUNCTIONS.get(node.target), f"function {getattr(node.target, '__name__', node.target)}"
    else:
        name, what = _METHODS.get(node.target), f"method {node.target}"
    if name is None:
        raise NotTraceable(f"its {what} is not supported")
    return name


def flattens(node: fx.Node, operation: str, modules: Mapping[str, nn.Module]) -> bool:
    """True if `node` reshapes [N, C, H, W] to [N, C·H·W]."""
    if operation == "reshape":
        return len(node.args) == 3 and isinstance(node.args[1], fx.Node) and bool(node.args[2] == -1)
    if operation != "flatten":
        return False
    if node.op == "call_module":
        module = modules[str(node.target)]
        return bool(module.start_dim == 1 and module.end_dim in (-1, 3))
    start = node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)
    end = node.args[2] if len(node.args) > 2 else node.kwargs.get("end_dim", -1)
    return bool(start == 1 and end in (-1, 3))


def keeps_rows_apart(node: fx.Node, operation: str) -> bool:
    """True if a ROW_BY_ROW operation on [N, …] treats each of the N rows on its own."""
    if operation in ("mean", "sum"):
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        return dim in (1, -1, (1,), (-1,), [1], [-1]) and keeps is True
    if operation == "cat":
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return dim in (1, -1)
    if operation == "getitem":
        index = node.args[1]
        return isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None) and isinstance(index[1], slice)
    return operation in ROW_BY_ROW


def is_affine(node: fx.Node, operation: str, varies: Callable[[fx.Node], bool]) -> bool:
    """True if a ROW_BY_ROW operation is affine in its state-dependent arguments."""
    varying = [isinstance(argument, fx.Node) and varies(argument) for argument in node.args]
    if operation == "mul":
        return sum(varying) == 1
    return operation != "div" or not varying[1]


def convolution(module: nn.Conv2d) -> Convolution:
    """Copy `module` as a convolution without groups; absent connections get weight 0.

    Raises NotTraceable for a padding mode other than zeros, and for padding="same" with an even kernel.
    """
    if module.padding_mode != "zeros":
        raise NotTraceable(f"padding_mode={module.padding_mode!r} is not supported")
    axes = []
    for index in (0, 1):
        kernel, stride, dilation = module.kernel_size[index], module.stride[index], module.dilation[index]
        if module.padding == "same":
            if (kernel - 1) * dilation % 2:
                raise NotTraceable("padding='same' with an even kernel is not supported")
            padding = (kernel - 1) * dilation // 2
        else:
            padding = 0 if module.padding == "valid" else int(module.padding[index])
        axes.append(Axis(kernel, stride, padding, dilation))
    weight = frozen_float32(module.weight)  # [O, I / groups, KH, KW]
    if module.groups > 1:
        dense = weight.new_zeros(module.out_channels, module.in_channels, *module.kernel_size)
        rows, columns = module.out_channels // module.groups, weight.shape[1]
        for group in range(module.groups):
            outputs, inputs = (slice(group * size, (group + 1) * size) for size in (rows, columns))
            dense[outputs, inputs] = weight[outputs]
        weight = dense
    return Convolution(weight, bias_of(module), vertical=axes[0], horizontal=axes[1], relu=False)


def bias_of(module: nn.Conv2d | nn.Linear) -> Tensor:
    """The bias of a layer; zeros if it has none."""
    weight = frozen_float32(module.weight)
    return weight.new_zeros(len(weight)) if module.bias is None else frozen_float32(module.bias)


def frozen_float32(parameter: Tensor) -> Tensor:
    """A float32 copy of the current values of `parameter`."""
    return parameter.detach().to(torch.float32, copy=True).contiguous()
