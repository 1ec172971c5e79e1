"""Record the tensor operations of a function on example states, and replay parts of them.

A recording has the ATen operations that depend on the states, in order. The function may be written
with layers or functions, nested modules, and Python code that reads only shapes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from nrmap.support.errors import first_line


class NotTraceable(Exception):  # noqa: N818 (not an error: the dense engine takes over)
    """Raised for a policy that the incremental engine does not support; the message gives the reason."""


class DrawsRandomNumbers(NotTraceable):
    """Raised for a policy that no engine supports, because it draws random numbers."""


@dataclass(frozen=True)
class Value:
    """The number of a recorded tensor that depends on the states."""

    number: int


STATES = Value(0)


@dataclass(frozen=True, eq=False)
class Call:
    """A recorded operation with its arguments: each is a `Value`, a constant tensor or anything else."""

    operation: OpOverload
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    results: tuple[Value, ...]

    @property
    def name(self) -> str:
        """The operation's name without overload and outer underscores, e.g. `relu` for `aten::relu_`."""
        return str(self.operation._schema.name).removeprefix("aten::").rstrip("_").removeprefix("_")

    @property
    def inputs(self) -> list[Value]:
        """The arguments that depend on the states."""
        return [leaf for leaf in tree_leaves((self.arguments, self.options)) if isinstance(leaf, Value)]

    @property
    def constants(self) -> list[Tensor]:
        """The tensors among the arguments that do not depend on the states."""
        return [leaf for leaf in tree_leaves((self.arguments, self.options)) if isinstance(leaf, Tensor)]

    def argument(self, name: str) -> Any:
        """Return the argument `name` of the operation's schema, or its default if none was given.

        Returns None if the schema has no such name.
        """
        for index, argument in enumerate(self.operation._schema.arguments):
            if argument.name == name:
                given = self.arguments[index] if index < len(self.arguments) else argument.default_value
                return self.options.get(name, given)
        return None

    def __call__(self, find: Callable[[Value], Tensor]) -> Sequence[Any]:
        """Run the operation with the tensor `find(value)` in place of each `Value`, and return its results."""
        arguments, options = tree_map(
            lambda leaf: find(leaf) if isinstance(leaf, Value) else leaf, (self.arguments, self.options)
        )
        results = self.operation(*arguments, **options)
        return results if isinstance(results, list | tuple) else [results]

    def map_constants(self, change: Callable[[Tensor], Tensor]) -> "Call":
        """Return the call with `change` applied to every constant tensor."""
        arguments, options = tree_map(
            lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf, (self.arguments, self.options)
        )
        return replace(self, arguments=arguments, options=options)


@dataclass(frozen=True, eq=False)
class Recording:
    """The calls that lead from the states to the result, without calls that do not contribute."""

    calls: tuple[Call, ...]
    result: Value
    shapes: Mapping[Value, torch.Size]
    dtypes: Mapping[Value, torch.dtype]


@torch.inference_mode(False)
@torch.no_grad()
def record(function: Callable[[Tensor], Tensor], states: Tensor) -> Recording:
    """Record `function` on `states`, uint8 [N, C, H, W].

    Raises DrawsRandomNumbers if the function draws random numbers. Raises NotTraceable, with the reason, if the
    function raises an exception or the recording cannot be replayed.
    """
    states = states.clone()
    recorder = _Recorder(states)
    try:
        with _NoOtherReads(recorder), recorder:
            result = function(states)
    except NotTraceable:
        raise
    except Exception as error:  # the function's code may raise anything
        raise NotTraceable(f"it cannot be recorded: {first_line(error)}") from error
    if not isinstance(result, Tensor):
        raise NotTraceable("it does not return a single tensor")
    last = recorder.seen(result)
    if not isinstance(last, Value):
        raise NotTraceable("its outputs do not depend on the states by tensor operations")
    needed, calls = {last}, []
    for call in reversed(recorder.calls):
        if needed.intersection(call.results):
            needed.update(call.inputs)
            calls.append(call)
    return Recording(tuple(reversed(calls)), last, recorder.shapes, recorder.dtypes)


class _Recorder(TorchDispatchMode):
    """Records every operation with an argument that depends on the states."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.shapes: dict[Value, torch.Size] = {}
        self.dtypes: dict[Value, torch.dtype] = {}
        self._tensors: list[Tensor] = []  # keeps the tensors alive, so that their ids stay unique
        self._values: dict[int, tuple[Value, int]] = {}  # by id: the value and the version of the tensor's memory
        self._add(states, states._version)

    def __torch_dispatch__(
        self, function: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        arguments, options = tree_map(self.seen, (args, kwargs or {}))
        if torch.Tag.nondeterministic_seeded in function.tags and not _is_off(Call(function, arguments, options, ())):
            raise DrawsRandomNumbers(f"its operation {function._schema.name} draws random numbers")
        results = function(*args, **kwargs or {})
        if any(isinstance(leaf, Value) for leaf in tree_leaves((arguments, options))):
            tensors = results if isinstance(results, list | tuple) else [results]
            if not all(isinstance(tensor, Tensor) for tensor in tensors):
                raise NotTraceable("its Python code reads values of the states")
            # After this method returns, torch counts changes in place and lets views share the count of their base.
            shared = args[0]._version if function._schema.returns[0].alias_info is not None else 0
            version = shared + function._schema.is_mutable
            values = tuple(self._add(tensor, version) for tensor in tensors)
            self.calls.append(Call(_out_of_place(function, arguments), arguments, options, values))
        return results

    def seen(self, leaf: Any) -> Any:
        """Return the `Value` of a tensor that depends on the states, and anything else as it is.

        Raises NotTraceable if the tensor was changed in place since it was recorded.
        """
        if not isinstance(leaf, Tensor) or id(leaf) not in self._values:
            return leaf
        value, version = self._values[id(leaf)]
        if leaf._version != version:
            raise NotTraceable("it changes a part of a tensor in place")
        return value

    def _add(self, tensor: Tensor, version: int) -> Value:
        value = Value(len(self.shapes))
        self.shapes[value], self.dtypes[value] = tensor.shape, tensor.dtype
        self._tensors.append(tensor)
        self._values[id(tensor)] = value, version
        return value


class _NoOtherReads(TorchFunctionMode):
    """Raises NotTraceable where the function reads values of the states without an operation, as by `Tensor.numpy`."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unseen = function in _UNSEEN or getattr(function, "__self__", None) is Tensor.data
        if unseen and isinstance(self._recorder.seen(args[0]), Value):
            raise NotTraceable("its Python code reads values of the states")
        return function(*args, **kwargs or {})


_UNSEEN = {
    Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr, Tensor.untyped_storage,
    Tensor.storage,
}  # fmt: skip


def _is_off(random: Call) -> bool:
    """Whether an operation that can draw random numbers draws none, as attention without dropout."""
    return random.argument("dropout_p") == 0 or random.argument("training") is False


def _out_of_place(function: OpOverload, arguments: tuple[Any, ...]) -> OpOverload:
    """Return the variant of `function` that changes no argument. Raises NotTraceable if there is none."""
    if not function._schema.is_mutable:
        return function
    packet = getattr(torch.ops.aten, function._schema.name.removeprefix("aten::").removesuffix("_"), None)
    overload = getattr(packet, function._overloadname, None)
    if overload is None or overload._schema.is_mutable or not isinstance(arguments[0], Value):
        raise NotTraceable(f"its operation {function._schema.name} changes a tensor in place")
    return overload


@dataclass(frozen=True, eq=False)
class Program:
    """A function made of recorded calls with its own copies of the constants."""

    calls: tuple[Call, ...]
    inputs: Mapping[Value, slice]  # the values given by columns (dimension 1) of the argument
    result: Value
    aliases: Mapping[Value, Value] = field(default_factory=dict)  # values that equal another one

    def __call__(self, tensor: Tensor) -> Tensor:
        """Run the calls on `tensor` [N, …] and return the result."""
        values = {value: tensor[:, columns] for value, columns in self.inputs.items()}

        def find(value: Value) -> Tensor:
            while value in self.aliases:
                value = self.aliases[value]
            return values[value]

        for call in self.calls:
            values.update(zip(call.results, call(find), strict=True))
        return find(self.result)

    def double(self) -> "Program":
        """Return the program with float64 constants."""
        return replace(self, calls=tuple(call.map_constants(to_double) for call in self.calls))


def to_double(constant: Tensor) -> Tensor:
    """Return `constant` in float64 if it has a floating-point type, otherwise unchanged."""
    return constant.double() if constant.is_floating_point() else constant
