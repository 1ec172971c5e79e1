"""Build a network from tensors and a table of their names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nrmap.policies.agent import Outputs
from nrmap.policies.network import NATURE_CONVS, STATE_SCALE, AtomSpec, ConvSpec, NetworkSpec, QNetwork
from nrmap.support.errors import NrmapError, check, shortened

# Files do not state strides: they are looked up by the kernel sizes.
_STRIDES = {
    tuple(conv.kernel for conv in NATURE_CONVS): tuple(conv.stride for conv in NATURE_CONVS),
    (8, 4): (4, 2),  # Mnih et al. 2013
}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# Layers that cannot be mapped from a file, by a part of their name.
_REFUSED = {
    "sigma": "noisy layers (NoisyNet), which draw random numbers",
    "running_mean": "batch normalisation",
    "lstm": "a recurrent layer, so its outputs depend on more than one state",
    "gru": "a recurrent layer, so its outputs depend on more than one state",
}


@dataclass(frozen=True)
class Keys:
    """Names of a network's layers in a state dict, each without `.weight` and `.bias`.

    `value_hidden` and `value_output` are the layers of V(s) in a dueling network, None in a network without V(s).
    `head` gives the order of the last layer's rows for A actions and Z quantiles or atoms: "plain" [A], "quantiles"
    [Z, A], "quantiles_by_action" [A, Z], "categorical" [A, Z]. The mean over the quantiles is the Q-value. `unused` are
    prefixes of the names of tensors that the policy does not need, such as a critic's.
    """

    convs: tuple[str, ...]
    hidden: str
    output: str
    value_hidden: str | None = None
    value_output: str | None = None
    head: Literal["plain", "quantiles", "quantiles_by_action", "categorical"] = "plain"
    outputs: Outputs = "q_values"
    unused: tuple[str, ...] = ()

    @property
    def layers(self) -> dict[str, str]:
        """A mapping from each layer's name in the state dict to its name in a QNetwork."""
        names = {name: f"features.{2 * number}" for number, name in enumerate(self.convs)}
        names |= {self.hidden: "advantage.0", self.output: "advantage.2"}
        if self.value_hidden and self.value_output:
            names |= {self.value_hidden: "value.0", self.value_output: "value.2"}
        return names


@dataclass(frozen=True)
class ReadNetwork:
    """The tensors of a policy file, and the facts about the policy that the file or its format states.

    `algorithm` is "" if unknown. `eyes` is the preset of the format's usual preprocessing. `input_scale` is the factor
    from states in [0, 255] to the network's own input. `sides` are height and width of a state, () if unknown.
    `atom_values` [Z] are the returns of a categorical head's atoms, None for another head. For `input_scale`, `game`,
    `seed` and `actions`, None means unknown.

    Raises NrmapError for values of another type or range. Raises NrmapError for a layer that is missing, has another
    number of dimensions, holds NaN or infinity, or is not of floats with at most 32 bits.
    """

    algorithm: str
    tensors: Mapping[str, Tensor]
    keys: Keys
    eyes: str
    input_scale: float | None = STATE_SCALE
    game: str | None = None
    seed: int | None = None
    agent_steps: int = 0
    sides: tuple[int, ...] = ()
    atom_values: Tensor | None = None
    actions: int | None = None

    def __post_init__(self) -> None:
        whole = (*(self.seed,) * (self.seed is not None), self.agent_steps, *self.sides)
        check(
            all(type(number) is int and 0 <= number < 2**63 for number in whole),
            f"its seed, steps or sides are {shortened(whole)}: expected whole numbers ≥ 0",
        )
        check(
            len(self.sides) in (0, 2) and 0 not in self.sides,
            f"its states have sides {shortened(self.sides)}: expected two",
        )
        check(self.game is None or isinstance(self.game, str), f"its game is {shortened(self.game)}: expected a name")
        atoms = self.atom_values
        numbers = (*_FLOATS, torch.float64, torch.int64)
        fits = atoms is None or (atoms.ndim == 1 and len(atoms) > 1 and atoms.dtype in numbers)
        check(fits, "its atoms are no list of returns: expected at least two numbers")
        for theirs, ours in self.keys.layers.items():
            _check_tensor(self.tensors, f"{theirs}.weight", 4 if ours.startswith("features") else 2)
            _check_tensor(self.tensors, f"{theirs}.bias", 1)

    @property
    def in_channels(self) -> int:
        """C, the number of channels of a state."""
        return self.tensors[f"{self.keys.convs[0]}.weight"].shape[1]


def _check_tensor(tensors: Mapping[str, Tensor], name: str, ndim: int) -> None:
    """Raise NrmapError unless the tensor `name` has `ndim` dimensions and finite numbers of at most 32 bits."""
    check(name in tensors, f"it has no {name}")
    tensor = tensors[name]
    check(tensor.ndim == ndim, f"{name} has shape {tuple(tensor.shape)}: expected {ndim} dimensions")
    check(tensor.dtype in _FLOATS, f"{name} is {tensor.dtype}: expected float32, as after model.float()")
    check(bool(tensor.isfinite().all()), f"{name} holds NaN or infinite values")


def matching(tables: Iterable[Keys], tensors: Mapping[str, Tensor]) -> Keys:
    """Return the first table in `tables` whose layers all have weights in `tensors`.

    Raises NrmapError if no table fits. Raises NrmapError if `tensors` has a tensor that the table does not name, since
    ignoring a layer could change the outputs. Raises NrmapError for noisy, recurrent and batch-norm layers.
    """
    for name in tensors:
        for part, what in _REFUSED.items():
            check(part not in name.lower(), f"{_names([name])} belongs to {what}: it cannot be mapped from a file")
    tables = list(tables)
    found = next((keys for keys in tables if all(f"{name}.weight" in tensors for name in keys.layers)), None)
    if found is None:
        missing = next(name for name in tables[0].layers if f"{name}.weight" not in tensors)
        raise NrmapError(f"it has no {missing}.weight, but {_names(tensors)}, …: another format?")
    known = {f"{name}.{kind}" for name in found.layers for kind in ("weight", "bias")}
    others = [name for name in tensors if name not in known and not name.startswith(found.unused)]
    check(not others, f"{_names(others)}: layers that this format does not have; use policy=py:… for them")
    return found


def _names(tensors: Iterable[str]) -> str:
    return ", ".join(shortened(name)[1:-1] for name in list(tensors)[:4])


def without_prefix(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """Return `tensors` with the first of `prefixes` that all names start with removed from the names.

    If there is no such prefix, the names stay unchanged.
    """
    prefix = next((prefix for prefix in prefixes if all(name.startswith(prefix) for name in tensors)), "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def build_network(
    read: ReadNetwork, *, actions: int, sides: tuple[int, int], input_scale: float, transposed: bool
) -> QNetwork:
    """Build the QNetwork that maps float states [N, C, H, W] in [0, 1] to the outputs [N, A] of the network in `read`.

    `actions` is A. `sides` are H and W. `input_scale` is the factor from states in [0, 255] to the original network's
    input. With `transposed` the original takes states with swapped axes [N, C, W, H]. Swapped axes, scaling and means
    over quantiles are folded into the weights of their layers; the values of all other weights stay exact.

    The QNetwork is in evaluation mode, and its parameters need no gradient. Raises NrmapError for weights that do not
    fit a known stack of convolutions, the sides or the actions. Raises NrmapError for atoms that are not evenly spaced.
    """
    kinds, layers = ("weight", "bias"), read.keys.layers.items()
    weights = {f"{ours}.{kind}": read.tensors[f"{theirs}.{kind}"].float() for theirs, ours in layers for kind in kinds}
    if read.keys.head.startswith("quantiles"):
        for name in ("advantage.2.weight", "advantage.2.bias"):
            weights[name] = _mean_over_quantiles(weights[name], actions, read.keys.head)
    spec = _spec(read, weights, actions, sides[::-1] if transposed else sides)
    if transposed:
        height, width = spec.feature_sides
        for name in (name for name in weights if name.startswith("features.") and name.endswith("weight")):
            weights[name] = weights[name].mT
        for name in {"advantage.0.weight", "value.0.weight"} & weights.keys():
            weights[name] = weights[name].unflatten(1, (-1, height, width)).mT.flatten(1)
        spec = replace(spec, height=sides[0], width=sides[1])
    if input_scale != STATE_SCALE:
        weights["features.0.weight"] = (weights["features.0.weight"].double() * (255 * input_scale)).float()
    network = QNetwork(spec)
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval()


def _spec(read: ReadNetwork, weights: Mapping[str, Tensor], actions: int, sides: tuple[int, int]) -> NetworkSpec:
    """Return the shape of the network that has these `weights`; NrmapError as for `build_network`.

    `sides` are height and width as the network's convolutions see them.
    """
    kernels = [weights[f"features.{2 * number}.weight"] for number in range(len(read.keys.convs))]
    sizes = tuple(kernel.shape[3] for kernel in kernels)
    known = sizes in _STRIDES and all(kernel.shape[2] == kernel.shape[3] for kernel in kernels)
    check(known, f"convolutions with kernels {sizes}: expected one of {', '.join(map(str, _STRIDES))}")
    atoms = None
    if read.atom_values is not None:
        values = read.atom_values.double()
        atoms = AtomSpec(len(values), float(values[0]), float(values[-1]))
        even = torch.linspace(atoms.lowest, atoms.highest, atoms.number, dtype=torch.float64)
        is_even = torch.allclose(values, even, rtol=0, atol=1e-5 * float(even.abs().max()))
        check(is_even, "its atoms are not evenly spaced")
    spec = NetworkSpec(
        in_channels=kernels[0].shape[1],
        height=sides[0],
        width=sides[1],
        actions=actions,
        dueling=read.keys.value_hidden is not None,
        convs=tuple(map(ConvSpec, map(len, kernels), sizes, _STRIDES[sizes])),
        hidden=len(weights["advantage.0.weight"]),
        atoms=atoms,
    )
    rows, wanted = len(weights["advantage.2.weight"]), actions * (1 if atoms is None else atoms.number)
    cause = "another game, or other actions (env.first_actions, env.full_action_space)?"
    check(rows == wanted, f"its last layer has {rows} outputs, {actions} actions need {wanted}: {cause}")
    with torch.device("meta"):  # a file may claim any size
        expected = {name: tensor.shape for name, tensor in QNetwork(spec).state_dict().items()}
    for theirs, ours in read.keys.layers.items():
        for kind in ("weight", "bias"):
            found, fits = tuple(weights[f"{ours}.{kind}"].shape), tuple(expected[f"{ours}.{kind}"])
            screens = f"for {sides[0]}×{sides[1]} screens without padding"
            check(found == fits, f"{theirs}.{kind} is {found}: expected {fits}, {screens}")
    return spec


def _mean_over_quantiles(rows: Tensor, actions: int, head: str) -> Tensor:
    """Return the means [A, …] of `rows` over the Z quantiles, summed in float64, as float32.

    `rows` are [A·Z, …] with `head` "quantiles_by_action", else [Z·A, …]; NrmapError if A does not divide them.
    """
    check(len(rows) % actions == 0, f"its last layer has {len(rows)} outputs, which {actions} actions cannot share")
    by_action = head == "quantiles_by_action"
    grouped = rows.double().unflatten(0, (actions, -1) if by_action else (-1, actions))
    return grouped.mean(dim=1 if by_action else 0).float()
