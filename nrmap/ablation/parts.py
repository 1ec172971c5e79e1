"""The parts of a traced network, as the incremental engine uses them."""

from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor
from torch.nn import functional

from nrmap.ablation.geometry import Axis
from nrmap.ablation.recording import Program

# Relative rounding error of a readout's weights, which are differences of outputs.
READ_OFF_ERROR = 1e-6


@dataclass(frozen=True, eq=False)
class Convolution:
    """One convolution, with or without a ReLU behind it."""

    weight: Tensor  # [O, I, KH, KW]
    bias: Tensor  # [O]
    vertical: Axis
    horizontal: Axis
    relu: bool

    @property
    def channels(self) -> int:
        """O, the number of output channels."""
        return len(self.weight)

    @cached_property
    def by_column(self) -> Tensor:
        """The weights [KW, KH·I, O]: per kernel column, a matrix from (kernel row, input channel) to output channel."""
        return self.weight.permute(3, 2, 1, 0).flatten(1, 2).contiguous()

    @cached_property
    def by_tap(self) -> Tensor:
        """The weights by kernel index, [KH + 1, KW + 1, I, O]; the last row and column are zero, for unread inputs."""
        return functional.pad(self.weight, (0, 1, 0, 1)).permute(2, 3, 1, 0).contiguous()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the outputs [N, O, H', W'] of `inputs` [N, I, H, W], before the ReLU."""
        down, across = self.vertical, self.horizontal
        stride, dilation = (down.stride, across.stride), (down.dilation, across.dilation)
        padding = down.before, across.before
        if padding != (down.after, across.after):
            inputs, padding = functional.pad(inputs, (across.before, across.after, down.before, down.after)), (0, 0)
        return functional.conv2d(inputs, self.weight, self.bias, stride, padding, dilation)

    def outputs(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output maps for input maps of `height` × `width`."""
        return self.vertical.outputs(height), self.horizontal.outputs(width)


@dataclass(frozen=True, eq=False)
class Readout:
    """The map from the hidden layer's pre-activations h to Q-values: Q = weight · relu(h) + bias."""

    weight: Tensor  # [A, U]
    bias: Tensor  # [A]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the Q-values [N, A] of the pre-activations `hidden` [N, U]."""
        return functional.linear(hidden.relu(), self.weight, self.bias)

    def double(self) -> "Readout":
        """Return a copy of the readout in float64."""
        return Readout(self.weight.double(), self.bias.double())


@dataclass(frozen=True, eq=False)
class NetworkParts:
    """A network in parts: Q(s) = tail(hidden_weight · flatten(convolutions(scaling(s))) + hidden_bias).

    The hidden layer stacks all linear layers that read the flattened features: with dueling heads
    the first layers of value and advantage. `tail` maps the hidden layer's pre-activations [N, U] to
    Q-values [N, A], each row independently.
    """

    scaling: Program
    scaled_values: Tensor  # [256, C], the scaled value of each grey level in each channel
    convolutions: tuple[Convolution, ...]
    hidden_weight: Tensor  # [U, F]
    hidden_bias: Tensor  # [U]
    tail: Program | Readout

    @property
    def actions(self) -> int:
        """A, the number of Q-values."""
        return self.tail(self.hidden_bias[None]).shape[1]

    def pre_activations(self, states: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the pre-activations of each convolution [N, O, H', W'] and of the hidden layer [N, U].

        `states` are uint8 [N, C, H, W].
        """
        inputs = self.scaling(states).to(self.hidden_weight.dtype)
        outputs = []
        for layer in self.convolutions:
            outputs.append(layer(inputs))
            inputs = outputs[-1].relu() if layer.relu else outputs[-1]
        return outputs, functional.linear(inputs.flatten(1), self.hidden_weight, self.hidden_bias)

    def q_values(self, states: Tensor) -> Tensor:
        """Return the Q-values [N, A] of uint8 `states` [N, C, H, W]."""
        return self.tail(self.pre_activations(states)[1])

    def differences_only(self) -> "NetworkParts":
        """Return the parts without hidden units of equal weights for all actions, which shift all Q-values equally.

        Dueling heads lose the units of V(s), half of the layer. All units stay without a Readout, or if none would be
        left.
        """
        if not isinstance(self.tail, Readout):
            return self
        weight = self.tail.weight  # [A, U]
        apart = weight.amax(dim=0) - weight.amin(dim=0) > READ_OFF_ERROR * weight.abs().amax(dim=0)  # [U]
        if not apart.any():
            return self
        return replace(
            self,
            hidden_weight=self.hidden_weight[apart].contiguous(),
            hidden_bias=self.hidden_bias[apart],
            tail=Readout(weight[:, apart].contiguous(), self.tail.bias),
        )

    def double(self) -> "NetworkParts":
        """Return the network in float64. The states are still scaled in float32, as in the policy."""
        layers = (replace(layer, weight=layer.weight.double(), bias=layer.bias.double()) for layer in self.convolutions)
        return replace(
            self,
            convolutions=tuple(layers),
            hidden_weight=self.hidden_weight.double(),
            hidden_bias=self.hidden_bias.double(),
            tail=self.tail.double(),
        )
