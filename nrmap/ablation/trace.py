"""Split a recorded network into scaling, convolutions, hidden layer and tail."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum

import torch
from torch import Tensor

from nrmap.ablation.geometry import strips
from nrmap.ablation.operations import (
    COPIES,
    KEEP_ZERO,
    MOVES,
    NO_PADDING,
    Padding,
    bias_or_zeros,
    channel_scaling,
    convolution_of,
    for_any_batch,
    frozen_float32,
    is_affine,
    is_pointwise,
    matrix_of,
    padding_of,
    treats_states_apart,
)
from nrmap.ablation.parts import Convolution, NetworkParts, Readout
from nrmap.ablation.recording import STATES, Call, NotTraceable, Program, Value, record


class _Role(Enum):
    """Role of a value in the recorded network."""

    PIXELS = "states, scaled pixel by pixel"
    MAP = "outputs of the latest convolution"
    FEATURES = "outputs of the last convolution, rearranged"
    HIDDEN = "pre-activations of the hidden layer, rearranged"
    AFFINE = "affine in relu(HIDDEN), state by state"
    ROWS = "any other function of HIDDEN, state by state"


_BEHIND_FEATURES = {_Role.HIDDEN, _Role.AFFINE, _Role.ROWS}


def trace(function: Callable[[Tensor], Tensor], states: Tensor) -> NetworkParts:
    """Split `function` into its parts, with copies of the current weights; `states`, uint8 [N, C, H, W], are examples.

    Supported are arithmetic on single pixel values; convolutions, optionally with padding by zeros, batch normalisation
    in evaluation mode and ReLU; Flatten; Linear; and then operations known to treat each state on its own, e.g. dueling
    heads, or mean or softmax over atoms. Raises DrawsRandomNumbers if the function draws random numbers. Raises
    NotTraceable, with the reason, for any other function that is not supported.
    """
    return _Reader(function, states).parts()


class _Reader:
    """Walks once through the recorded calls and assigns a role to every value."""

    def __init__(self, function: Callable[[Tensor], Tensor], states: Tensor) -> None:
        self.recording = record(function, states)
        self.states = len(states)
        self.roles = {STATES: _Role.PIXELS}
        self.scaled: Value | None = None  # the input of the first convolution
        self.convolutions: list[Convolution] = []
        self.newest_map: set[Value] = set()  # the latest map and its copies
        self.paddings: dict[Value, Padding] = {}
        self.features: dict[Value, Tensor] = {}  # [N, …], indices into a flattened map [C, H, W]
        self.hidden: dict[Value, tuple[Tensor, Tensor]] = {}  # weight [U, F] and bias [U]

    def parts(self) -> NetworkParts:
        """Return the network in parts. Raises NotTraceable for an operation that is not supported at its place."""
        for call in self.recording.calls:
            self.roles.update(dict.fromkeys(call.results, self._role(call)))
        result = self.recording.result
        if self.roles[result] not in _BEHIND_FEATURES or self.scaled is None:
            raise NotTraceable("it is not made of convolutions, Flatten and Linear")
        if not strips(self.convolutions[0].vertical, self.recording.shapes[STATES][2]):
            raise NotTraceable("its first convolution reads only padding")
        scaling = self._program({_Role.PIXELS}, {STATES: slice(None)}, self.scaled)
        weights, biases = zip(*self.hidden.values(), strict=True)
        units, unit = {}, 0
        for value, bias in zip(self.hidden, biases, strict=True):
            units[value] = slice(unit, unit + len(bias))
            unit += len(bias)
        tail, hidden_weight = self._program(_BEHIND_FEATURES, units, result), torch.cat(weights)
        return NetworkParts(
            scaling=scaling,
            scaled_values=_scaled_values(scaling, self.convolutions[0].weight),
            convolutions=tuple(self.convolutions),
            hidden_weight=hidden_weight,
            hidden_bias=torch.cat(biases),
            tail=_readout(tail, hidden_weight) if self.roles[result] is _Role.AFFINE else tail,
        )

    def _role(self, call: Call) -> _Role:
        roles = {self.roles[value] for value in call.inputs}
        if roles == {_Role.PIXELS}:
            return self._of_pixels(call)
        dtype = call.argument("dtype") if call.name == "to_copy" else None
        if dtype not in (None, torch.float32, torch.float64):
            raise NotTraceable(f"it computes in {dtype}")
        if dtype is not None and not self.recording.dtypes[call.inputs[0]].is_floating_point:
            raise NotTraceable("it computes with whole numbers or flags")
        if roles == {_Role.MAP}:
            return self._of_map(call)
        if roles == {_Role.FEATURES}:
            return self._of_features(call)
        if roles <= _BEHIND_FEATURES:
            return self._behind_features(call, roles)
        raise NotTraceable(f"its {call.name} mixes values from different depths")

    def _of_pixels(self, call: Call) -> _Role:
        if call.name == "convolution":
            if self.scaled is not None:
                raise NotTraceable("several convolutions read the states")
            (self.scaled,) = call.inputs
            return self._convolve(call)
        scales = call.name in COPIES or (is_pointwise(call) and self._treats_states_apart(call))
        if not self._pads(call) and not scales:
            raise NotTraceable(f"its {call.name} reads the states, where only scaling and one convolution may")
        return _Role.PIXELS

    def _of_map(self, call: Call) -> _Role:
        newest = call.inputs[0]
        if len(call.inputs) > 1 or newest not in self.newest_map:
            raise NotTraceable(f"its convolutions branch at {call.name}")
        if call.name in COPIES:
            self._pads(call)
            self.newest_map.update(call.results)
            return _Role.MAP
        if call.name in MOVES and newest not in self.paddings and self._treats_states_apart(call):
            shape = self.recording.shapes[newest][1:]
            indices = torch.arange(shape.numel(), device=self.convolutions[0].weight.device).view(shape)
            self._rearrange(call, {newest: indices.repeat(self.states, 1, 1, 1)})
            return _Role.FEATURES
        if self.features:
            raise NotTraceable(f"its {call.name} goes on behind Flatten")
        if call.name == "convolution":
            return self._convolve(call)
        if not self._pads(call):
            self.convolutions[-1] = self._with(call, self.convolutions[-1])
        self.newest_map = {call.results[0]}
        return _Role.MAP

    def _convolve(self, call: Call) -> _Role:
        self.convolutions.append(convolution_of(call, self.paddings.get(call.inputs[0], NO_PADDING)))
        self.newest_map = set(call.results)
        return _Role.MAP

    def _pads(self, call: Call) -> bool:
        """Note by how many zeros the results of `call` are padded, and return whether `call` itself pads."""
        padding = padding_of(call)
        before = [self.paddings[value] for value in call.inputs if value in self.paddings]
        if (before and padding is None and call.name not in COPIES | KEEP_ZERO) or len(set(before)) > 1:
            raise NotTraceable(f"its {call.name} stands between padding and a convolution")
        if padding is not None or before:
            sides = zip(padding or NO_PADDING, *before[:1] or [NO_PADDING], strict=True)
            left, right, top, bottom = (sum(side) for side in sides)
            self.paddings[call.results[0]] = left, right, top, bottom
        return padding is not None

    @staticmethod
    def _with(call: Call, layer: Convolution) -> Convolution:
        """Return `layer` with the ReLU, batch normalisation or arithmetic of `call` behind it.

        Raises NotTraceable for any other call.
        """
        if call.name == "relu":
            return replace(layer, relu=True)
        scaling = channel_scaling(call, layer.channels)
        if scaling is None or layer.relu:
            raise NotTraceable(f"its {call.name} stands between convolutions" + " behind a ReLU" * layer.relu)
        scale, shift = scaling  # float64 [O]
        weight, bias = layer.weight.double() * scale[:, None, None, None], layer.bias.double() * scale + shift
        return replace(layer, weight=weight.float(), bias=bias.float())

    def _of_features(self, call: Call) -> _Role:
        if call.name in MOVES and self._treats_states_apart(call):
            self._rearrange(call, self.features)
            return _Role.FEATURES
        product = matrix_of(call)
        if product is None or product[0].ndim != 2 or len(self.features[call.inputs[0]]) != self.states:
            raise NotTraceable(f"its {call.name} stands between Flatten and Linear")
        matrix, bias = product  # [F', U], [U]
        order = self.features[call.inputs[0]][0]  # [F']
        features = self.recording.shapes[next(iter(self.newest_map))][1:].numel()
        weight = frozen_float32(matrix.T)  # [U, F']
        weight = weight.new_zeros(len(weight), features).index_add_(1, order, weight)  # [U, F]
        self.hidden[call.results[0]] = weight, bias_or_zeros(bias, weight)
        return _Role.HIDDEN

    def _rearrange(self, call: Call, indices: Mapping[Value, Tensor]) -> None:
        """Apply `call`, which only moves numbers, to the indices of features."""
        if call.name in COPIES:
            self.features[call.results[0]] = indices[call.inputs[0]]
            return
        results = for_any_batch(call, self.recording.shapes)(indices.__getitem__)
        self.features.update(zip(call.results, results, strict=True))

    def _behind_features(self, call: Call, roles: set[_Role]) -> _Role:
        if not self._treats_states_apart(call):
            raise NotTraceable(f"its {call.name} behind the hidden layer is not supported")
        if call.name == "relu" and roles == {_Role.HIDDEN}:
            return _Role.AFFINE
        if (call.name in MOVES and len(roles) == 1) or (is_affine(call) and roles == {_Role.AFFINE}):
            return roles.pop()
        return _Role.ROWS

    def _treats_states_apart(self, call: Call) -> bool:
        return treats_states_apart(call, self.recording.shapes, self.states)

    def _program(self, roles: set[_Role], inputs: Mapping[Value, slice], result: Value) -> Program:
        """Make a function from `inputs` to `result` out of the recorded calls whose results have one of `roles`."""
        calls, aliases = [], {}
        for call in self.recording.calls:
            if self.roles[call.results[0]] not in roles or call.results[0] in inputs:
                continue
            # A cast would spoil float64; behind the hidden layer all casts are between floating-point types.
            if padding_of(call) is not None or (call.name in COPIES and _Role.PIXELS not in roles):
                aliases[call.results[0]] = call.inputs[0]
            else:
                copy = torch.clone if _Role.PIXELS in roles else _as_float32
                calls.append(for_any_batch(call, self.recording.shapes).map_constants(copy))
        return Program(tuple(calls), inputs, result, aliases)


def _as_float32(constant: Tensor) -> Tensor:
    return frozen_float32(constant) if constant.is_floating_point() else constant.clone()


def _readout(tail: Program, hidden_weight: Tensor) -> Readout:
    """Find weight and bias of a tail that is affine in relu(h), by running it in float64 on 0 and on unit vectors."""
    units = torch.eye(len(hidden_weight), dtype=torch.float64, device=hidden_weight.device)
    outputs = tail.double()(torch.cat([torch.zeros_like(units[:1]), units]))  # [1 + U, A]
    return Readout((outputs[1:] - outputs[0]).float().T.contiguous(), outputs[0].float())


def _scaled_values(scaling: Program, weight: Tensor) -> Tensor:
    """Return the scaled values [256, C] of the grey levels in each channel.

    Raises NotTraceable if they differ between pixels.
    """
    levels = torch.arange(256, dtype=torch.uint8, device=weight.device)
    try:
        scaled = scaling(levels.view(256, 1, 1, 1).repeat(1, weight.shape[1], 1, 1))
    except RuntimeError as error:  # constants of another shape
        raise NotTraceable("its scaling is not the same for all pixels") from error
    if scaled.shape != (256, weight.shape[1], 1, 1):
        raise NotTraceable("its scaling is not the same for all pixels")
    return scaled.flatten(1).float()
