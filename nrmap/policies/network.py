"""The network of a policy: convolutions, then a plain, dueling (Wang et al. 2016) or categorical head."""

import copy
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as every_module

from nrmap.support.errors import check
from nrmap.support.schema import schema

# The upper limits keep the number of weights of any layer within 64 bits.
Channels = Annotated[int, Field(ge=1, le=2**16)]
Side = Annotated[int, Field(ge=1, le=2**12)]


@schema
class ConvSpec:
    """One convolution without padding, followed by a ReLU; sizes in channels and pixels."""

    channels: Channels
    kernel: Side
    stride: Side


# States in [0, 255] times this are in [0, 1].
STATE_SCALE = 1 / 255

NATURE_CONVS = (ConvSpec(32, 8, 4), ConvSpec(64, 4, 2), ConvSpec(64, 3, 1))

MOST_RETURN = 1e30  # larger ones overflow in float32


@schema
class AtomSpec:
    """The atoms, evenly spaced returns z, of a C51 head (Bellemare et al. 2017).

    Raises NrmapError unless lowest < highest, both within ±`MOST_RETURN`, and `number` is from 2 to 4096.
    """

    number: Annotated[int, Field(ge=2, le=2**12)]
    lowest: float
    highest: float

    def __post_init__(self) -> None:
        fits = -MOST_RETURN <= self.lowest < self.highest <= MOST_RETURN
        check(fits, f"atoms {self}: expected lowest < highest, both within ±{MOST_RETURN:g}")


def unit_states(states: Tensor) -> Tensor:
    """Return uint8 `states` as float32 in [0, 1]: the input of networks, attacks and certificates."""
    return states.float() * STATE_SCALE


@schema
class NetworkSpec:
    """The shape of a network from states [N, in_channels, height, width] to Q-values or logits [N, actions].

    With `atoms` the head is categorical: it has one output per action a and atom z, and Q(s, a) = Σ_z z · p(z | s, a)
    with p the softmax over atoms. None means another head. `hidden` is the width of each hidden layer. Raises
    NrmapError for values out of range, for atoms in a dueling head, and for a screen too small for `convs`.
    """

    in_channels: Channels
    height: Side
    width: Side
    actions: Channels
    dueling: bool = True
    convs: Annotated[tuple[ConvSpec, ...], Field(min_length=1, max_length=32)] = NATURE_CONVS
    hidden: Channels = 512
    atoms: AtomSpec | None = None

    def __post_init__(self) -> None:
        check(self.atoms is None or not self.dueling, "a categorical head cannot be dueling here")
        check(min(self.feature_sides) > 0, f"a {self.height}×{self.width} screen is too small for the convolutions")

    @property
    def feature_sides(self) -> tuple[int, int]:
        """Height and width of the last convolution's output."""
        height, width = self.height, self.width
        for conv in self.convs:
            height = (height - conv.kernel) // conv.stride + 1
            width = (width - conv.kernel) // conv.stride + 1
        return height, width


class QNetwork(nn.Module):
    """A network from float states [N, C, H, W] in [0, 1] to Q-values or logits [N, A].

    With `dueling`, Q(s, a) = V(s) + A(s, a) − mean_a A(s, a) (Wang et al. 2016, eq. 9), and value and advantage each
    have their own hidden layer. Otherwise one hidden layer leads to the outputs, or with `atoms` to a logit for each
    action and atom. New weights are drawn from torch's global random state.
    """

    atom_values: Tensor  # [Z]

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        channels = spec.in_channels
        for conv in spec.convs:
            layers += [nn.Conv2d(channels, conv.channels, conv.kernel, conv.stride), nn.ReLU()]
            channels = conv.channels
        self.features = nn.Sequential(*layers, nn.Flatten())
        height, width = spec.feature_sides
        features, atoms = channels * height * width, spec.atoms
        self.advantage = _head(features, spec.hidden, spec.actions * (1 if atoms is None else atoms.number))
        self.value = _head(features, spec.hidden, 1) if spec.dueling else None
        if atoms is not None:
            values = torch.linspace(atoms.lowest, atoms.highest, atoms.number)
            self.register_buffer("atom_values", values, persistent=False)
        # This layout makes an update on a CPU about a third faster.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, states: Tensor) -> Tensor:
        """Return the outputs [N, A] of float `states` [N, C, H, W]."""
        features = self.features(states)  # [N, F]
        advantage = self.advantage(features)  # [N, A], or [N, A·Z] with atoms
        if self.value is None:
            return self.expectation(advantage)
        return _dueling(self.value(features), advantage)

    @property
    def is_as_specified(self) -> bool:
        """Whether calls compute what `spec` says.

        False if a layer was replaced or reconfigured, or has forward hooks or methods of its own.
        """
        with torch.device("meta"):
            declared = repr(QNetwork(self.spec))
        return repr(self) == declared and all(map(acts_as_its_type, self.modules()))

    def expectation(self, outputs: Tensor) -> Tensor:
        """Turn the logits [N, A·Z] of a categorical head into Σ_z z · p(z | s, a), [N, A].

        Without atoms, return `outputs` unchanged.
        """
        if self.spec.atoms is None:
            return outputs
        probabilities = outputs.unflatten(1, (self.spec.actions, -1)).softmax(dim=2)  # [N, A, Z]
        return (probabilities * self.atom_values).sum(dim=2)


def acts_as_its_type(layer: nn.Module) -> bool:
    """Whether a call of `layer` runs only the `forward` of its class.

    False if `layer` has methods of its own, and if there are forward hooks or pre-hooks, on `layer` or on all modules.
    Backward hooks do not count.
    """
    everywhere = every_module._global_forward_pre_hooks or every_module._global_forward_hooks
    own = any(callable(getattr(type(layer), name, None)) for name in vars(layer))  # as in `layer.forward = …`
    return not (layer._forward_pre_hooks or layer._forward_hooks or everywhere or own)


def seeded_network(spec: NetworkSpec, seed: int) -> QNetwork:
    """Return an untrained network with weights drawn from `seed`.

    The states of torch's global generators do not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change those of CUDA as well
        return QNetwork(spec)


def _dueling(value: Tensor, advantage: Tensor) -> Tensor:
    """Q = V + A − mean_a A, [N, A], from `value` [N, 1] and `advantage` [N, A] (Wang et al. 2016, eq. 9)."""
    return value + advantage - advantage.mean(dim=1, keepdim=True)


def _head(features: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


_FIRST = {"features.0.weight", "features.0.bias"}
_LAST = {f"{head}.2.{kind}" for head in ("advantage", "value") for kind in ("weight", "bias")}


def rounded(network: QNetwork, precision: torch.dtype, *, exact_input: bool = False) -> Callable[[Tensor], Tensor]:
    """Return `network` as a function of float32 states, computed in `precision` except for its last linear layers.

    The last layers stay in float32 because Q-values of two actions of Freeway differ by about 0.01 at values of about
    1, where bfloat16 numbers are 0.01 apart too. With `exact_input` the first convolution also stays in float32: just
    below 1, bfloat16 numbers are 1/256 apart, as much as the radius of an attack. Parameters and their gradients stay
    in float32. With `precision` float32, return `network` itself.
    """
    if precision == torch.float32:
        return network
    exact = _LAST | (_FIRST if exact_input else set())
    return lambda states: _outputs(
        network,
        {name: tensor if name in exact else tensor.to(precision) for name, tensor in network.named_parameters()},
        states,
    )


def with_rounded_weights(network: QNetwork, precision: torch.dtype) -> QNetwork:
    """Return a copy of `network` whose weights are stored in the precision in which `rounded` uses them.

    `rounded` without `exact_input` gives the same values for the copy and skips the conversion of weights, which takes
    a good part of the time at a batch of 32. The copy cannot be trained.
    """
    kept = copy.deepcopy(network).requires_grad_(False)
    for name, tensor in kept.named_parameters():
        if name not in _LAST:
            tensor.data = tensor.data.to(precision)
    return kept


def frozen(
    network: QNetwork, *, value: bool = True, precision: torch.dtype | None = None
) -> Callable[[Tensor], Tensor]:
    """Return `network` as a function of float32 states, with cheap input gradients and no parameter gradients.

    All but the first and the last layers are computed in `precision`, see `rounded`. None means the weights' own
    precision. Without `value` a dueling network gives the advantages A(s, a). They differ from Q(s, a) by the same
    number for all actions of a state, so margins, softmax and the gradients of both stay the same.

    If the first convolution's stride divides kernel and screen, the convolution becomes space-to-depth by the stride
    and a convolution of stride 1. Outputs are the same up to rounding, but the input gradient, the slowest step of an
    attack on a CPU, takes a fifth of the time. Hooks of `network` do not run. Make a new function after each update of
    `network`, since the parameters may be copied.
    """
    parameters = {
        name: tensor.detach() if name in _FIRST | _LAST else tensor.detach().to(precision or tensor.dtype)
        for name, tensor in network.named_parameters()
    }
    spec, first = network.spec, network.spec.convs[0]
    if first.stride == 1 or any(side % first.stride for side in (spec.height, spec.width, first.kernel)):
        return lambda states: _outputs(network, parameters, states, value=value)
    weight = parameters["features.0.weight"]
    parameters["features.0.weight"] = functional.pixel_unshuffle(weight, first.stride)

    def q_values(states: Tensor) -> Tensor:
        blocks = functional.pixel_unshuffle(states, first.stride).contiguous(memory_format=torch.channels_last)
        return _outputs(network, parameters, blocks, first_stride=1, value=value)

    return q_values


def _outputs(
    network: QNetwork,
    parameters: Mapping[str, Tensor],
    states: Tensor,
    *,
    first_stride: int | None = None,
    value: bool = True,
) -> Tensor:
    """Return the outputs [N, A] of `network` with `parameters` in place of its own; see `frozen`.

    Each layer is computed in the precision of its weights.
    """

    def layer(apply: Callable[..., Tensor], inputs: Tensor, name: str, **options: int) -> Tensor:
        weight = parameters[f"{name}.weight"]
        return apply(inputs.to(weight.dtype), weight, parameters[f"{name}.bias"], **options)

    def head(name: str) -> Tensor:
        return layer(functional.linear, layer(functional.linear, features, f"{name}.0").relu(), f"{name}.2")

    features = states
    for index, conv in enumerate(network.spec.convs):
        stride = conv.stride if index or first_stride is None else first_stride
        features = layer(functional.conv2d, features, f"features.{2 * index}", stride=stride).relu()
    features = features.flatten(1)  # [N, F]
    advantage = head("advantage")
    if not network.spec.dueling or not value:
        return network.expectation(advantage)
    return _dueling(head("value"), advantage)
