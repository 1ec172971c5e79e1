"""Split a network with torch.fx into scaling, convolutions, hidden layer and tail."""

import copy
import operator
from dataclasses import replace
from enum import Enum

import torch
from torch import Tensor, fx, nn

from nrmap.ablation.operations import (
    ELEMENTWISE,
    ROW_BY_ROW,
    NotTraceable,
    bias_of,
    convolution,
    flattens,
    frozen_float32,
    is_affine,
    keeps_rows_apart,
    operation_of,
)
from nrmap.ablation.parts import Convolution, NetworkParts, Readout


class _Role(Enum):
    """Role of a value in the traced network."""

    PIXELS = "states, scaled pixel by pixel"
    MAP = "outputs of the latest convolution"
    FEATURES = "flattened outputs of the last convolution"
    HIDDEN = "pre-activations of the hidden layer"
    AFFINE = "affine in relu(HIDDEN), row by row"
    ROWS = "any other function of HIDDEN, row by row"
    CONSTANT = "equal for all states"


_BEHIND_HIDDEN = {_Role.HIDDEN, _Role.AFFINE, _Role.ROWS}


def trace(policy: object) -> NetworkParts:
    """Split `policy` into its parts; copies the current weights.

    Supported are torch.nn.Modules with arithmetic on single pixel values, then Conv2d and ReLU,
    Flatten, Linear, and behind the first Linear layers any arithmetic that treats each row of the
    batch on its own, e.g. dueling heads. Raises NotTraceable with the reason for any other policy.
    """
    if not isinstance(policy, nn.Module):
        raise NotTraceable(f"it is a {type(policy).__name__}, not a torch.nn.Module")
    try:
        traced = fx.symbolic_trace(policy)
    except Exception as error:  # the module's code may raise anything for a symbolic input
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotTraceable(f"torch.fx cannot trace it: {reason}") from error
    return _Reader(traced).parts()


class _Reader:
    """Walks once through the traced graph and assigns a role to every value."""

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.modules = dict(traced.named_modules())
        self.kinds: dict[fx.Node, _Role] = {}
        self.convolutions: list[Convolution] = []
        self.hidden: dict[fx.Node, nn.Linear] = {}
        self.scaled: fx.Node | None = None
        self.newest_map: fx.Node | None = None
        self.result: fx.Node | None = None

    def parts(self) -> NetworkParts:
        """Split the whole graph."""
        for node in self.traced.graph.nodes:
            if node.op == "output":
                self._end(node)
            else:
                self.kinds[node] = self._kind(node)
        assert self.result is not None
        tail = self._tail(self.result)
        hidden_weight = torch.cat([frozen_float32(layer.weight) for layer in self.hidden.values()])
        affine = self.kinds[self.result] is _Role.AFFINE
        scaling = self._scaling()
        return NetworkParts(
            scaling=scaling,
            scaled_values=_scaled_values(scaling, self.convolutions[0].weight),
            convolutions=tuple(self.convolutions),
            hidden_weight=hidden_weight,
            hidden_bias=torch.cat([bias_of(layer) for layer in self.hidden.values()]),
            tail=_readout(tail, hidden_weight) if affine else tail,
        )

    def _kind(self, node: fx.Node) -> _Role:
        if node.op == "placeholder":
            if _Role.PIXELS in self.kinds.values():
                raise NotTraceable("it takes more than one argument")
            return _Role.PIXELS
        if node.op == "get_attr":
            return _Role.CONSTANT
        operation = operation_of(node, self.modules)
        kinds = {self.kinds[argument] for argument in node.all_input_nodes} - {_Role.CONSTANT}
        if not kinds or operation == "size" or (operation == "getattr" and node.args[1] == "shape"):
            return _Role.CONSTANT
        if kinds == {_Role.PIXELS}:
            return self._of_pixels(node, operation)
        if kinds == {_Role.MAP}:
            return self._of_map(node, operation)
        if kinds == {_Role.FEATURES}:
            return self._of_features(node, operation)
        if kinds <= _BEHIND_HIDDEN:
            return self._of_rows(node, operation, kinds)
        raise NotTraceable(f"its {node.name} mixes values from different depths")

    def _of_pixels(self, node: fx.Node, operation: str) -> _Role:
        if operation in ELEMENTWISE:
            return _Role.PIXELS
        if operation != "conv" or self.scaled is not None:
            raise NotTraceable(f"its {node.name} reads the states, where only scaling and one convolution may")
        self.scaled = node.all_input_nodes[0]
        return self._convolve(node)

    def _of_map(self, node: fx.Node, operation: str) -> _Role:
        if self.newest_map not in node.all_input_nodes:
            raise NotTraceable(f"its convolutions branch at {node.name}")
        if flattens(node, operation, self.modules):
            return _Role.FEATURES
        if _Role.FEATURES in self.kinds.values():
            raise NotTraceable(f"its convolutions go on behind Flatten at {node.name}")
        if operation == "conv":
            return self._convolve(node)
        if operation == "relu":
            self.convolutions[-1] = replace(self.convolutions[-1], relu=True)
        elif operation not in ("identity", "cast"):
            raise NotTraceable(f"its {node.name} stands between convolutions")
        self.newest_map = node
        return _Role.MAP

    def _convolve(self, node: fx.Node) -> _Role:
        layer = self.modules[str(node.target)]
        assert isinstance(layer, nn.Conv2d)
        self.convolutions.append(convolution(layer))
        self.newest_map = node
        return _Role.MAP

    def _of_features(self, node: fx.Node, operation: str) -> _Role:
        if operation in ("identity", "cast"):
            return _Role.FEATURES
        if operation != "linear":
            raise NotTraceable(f"its {node.name} stands between Flatten and Linear")
        layer = self.modules[str(node.target)]
        assert isinstance(layer, nn.Linear)
        self.hidden[node] = layer
        return _Role.HIDDEN

    def _of_rows(self, node: fx.Node, operation: str, kinds: set[_Role]) -> _Role:
        if operation == "relu":
            return _Role.AFFINE if kinds == {_Role.HIDDEN} else _Role.ROWS
        if operation not in ROW_BY_ROW or not keeps_rows_apart(node, operation):
            raise NotTraceable(f"its {node.name} behind the hidden layer is not supported")
        affine = is_affine(node, operation, lambda argument: self.kinds[argument] is not _Role.CONSTANT)
        return _Role.AFFINE if affine and kinds == {_Role.AFFINE} else _Role.ROWS

    def _end(self, node: fx.Node) -> None:
        result = node.args[0]
        if not isinstance(result, fx.Node):
            raise NotTraceable("it does not return a single tensor")
        if self.kinds[result] not in _BEHIND_HIDDEN:
            raise NotTraceable("it is not made of convolutions, Flatten and Linear")
        self.result = result

    def _scaling(self) -> fx.GraphModule:
        """Module that maps uint8 states to the float32 inputs of the first convolution."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.traced.graph.nodes:
            if self.kinds.get(node) in (_Role.PIXELS, _Role.CONSTANT):
                _copy(node, graph, copies)
        assert self.scaled is not None
        graph.output(graph.call_method("float", (copies[self.scaled],)))
        return _module(self.traced, graph)

    def _tail(self, result: fx.Node) -> fx.GraphModule:
        """Module that maps hidden pre-activations [N, U] to Q-values [N, A]."""
        graph = fx.Graph()
        hidden = graph.placeholder("hidden")
        copies: dict[fx.Node, fx.Node] = {}
        unit = 0
        for node in self.traced.graph.nodes:
            if node in self.hidden:
                stop = unit + self.hidden[node].out_features
                copies[node] = graph.call_function(operator.getitem, (hidden, (slice(None), slice(unit, stop))))
                unit = stop
            elif self.kinds.get(node) in {*_BEHIND_HIDDEN, _Role.CONSTANT}:
                _copy(node, graph, copies)
        if result not in copies:
            raise NotTraceable(f"its {result.name} depends on the shape of the states")
        graph.output(copies[result])
        return _module(self.traced, graph)


def _copy(node: fx.Node, graph: fx.Graph, copies: dict[fx.Node, fx.Node]) -> None:
    """Copy `node` to `graph` if all its inputs are there; a tail, for instance, has no sizes of the states."""
    if all(argument in copies for argument in node.all_input_nodes) or node.op == "placeholder":
        copies[node] = graph.node_copy(node, copies.__getitem__)


def _module(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """A module of `graph` with its own copies of the layers and constants of `traced`."""
    module = copy.deepcopy(fx.GraphModule(traced, graph)).requires_grad_(False).eval()
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _readout(tail: nn.Module, hidden_weight: Tensor) -> Readout:
    """Matrix and bias of a tail that is affine in relu(h), read off in float64."""
    units = torch.eye(len(hidden_weight), dtype=torch.float64, device=hidden_weight.device)
    outputs = copy.deepcopy(tail).double()(torch.cat([torch.zeros_like(units[:1]), units]))  # [1 + U, A]
    return Readout((outputs[1:] - outputs[0]).float().T.contiguous(), outputs[0].float())


def _scaled_values(scaling: nn.Module, weight: Tensor) -> Tensor:
    """The scaled values of the grey levels 0 to 255 in each channel, [256, C]."""
    levels = torch.arange(256, dtype=torch.uint8, device=weight.device)
    scaled: Tensor = scaling(levels.view(256, 1, 1, 1).repeat(1, weight.shape[1], 1, 1))
    if scaled.shape != (256, weight.shape[1], 1, 1):
        raise NotTraceable("its scaling is not the same for all pixels")
    return scaled.flatten(1)
