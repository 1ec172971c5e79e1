"""The agent: a fixed function of the state, with the input scaling that maps, attacks and roll-outs share."""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from nrmap.atari.env_spec import EnvSpec
from nrmap.policies.network import STATE_SCALE, acts_as_its_type
from nrmap.support.errors import NrmapError, check, code_of_others, first_line, shortened, unknown_choice

Outputs = Literal["q_values", "logits"]

# Two evaluations of the same states may differ by rounding. The same call twice: by this fraction of the
# largest |output|. One state at a time and in a batch: by this fraction of max(1, largest |output|), but by
# no more than a quarter of the difference between states.
ROUNDING = 1e-5
MOST_UNUSUAL = 1000
PROBE_STATES = 4
NO_GAME = "no_game"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# In training mode these layers draw random numbers or mix the states of a batch.
_NOT_FIXED_IN_TRAINING = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


class Agent(nn.Module):
    """A function from states to Q-values or logits, and the scaling of its input.

    Call it with uint8 states [N, C, H, W] in [0, 255] to get outputs [N, A]. States of another type
    or shape raise NrmapError, and so does a function that fails `check` on its first states.
    """

    function: Callable[[Tensor], Tensor]

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        state_shape: Sequence[int] = (4, 84, 84),
        outputs: Outputs = "q_values",
        input_scale: float | None = STATE_SCALE,
        *,
        env: EnvSpec | None = None,
        name: str = "agent",
    ) -> None:
        """Wrap `function`, a torch.nn.Module or any other callable that returns a tensor [N, A], A ≥ 2.

        `function` gets float32 states [N, C, H, W] in [0, 255·`input_scale`]. A network that divides by 255 itself
        takes `input_scale=1`. With None it gets the uint8 states as they are and cannot be attacked, since they have no
        gradient. `state_shape` is (C, H, W). `outputs` says whether the [N, A] are Q-values or the logits of a softmax
        policy. `env` lets the agent play an Atari game. `name` stands in records and figures.

        Raises NrmapError for arguments of another kind or range, and for a network of stable-baselines3
        that divides by 255 itself, unless `input_scale` is 1 or None.
        """
        super().__init__()
        check(not isinstance(function, Agent), "the function is an Agent already: its input would be scaled twice")
        fits = callable(function) and not isinstance(function, type)  # a class is no module yet
        check(fits, f"function={shortened(function)}: expected a torch.nn.Module or another callable")
        # stable-baselines3's networks divide by 255 before their first layer.
        with code_of_others(f"function={shortened(function)}"):
            modules = function.modules() if isinstance(function, nn.Module) else [function]
            scales_itself = any(bool(getattr(module, "normalize_images", False)) for module in modules)
        check(
            not scales_itself or input_scale in (None, 1),
            "the function divides by 255 itself (normalize_images): give input_scale=1",
        )
        self.function = function
        self.state_shape = _state_shape(state_shape)
        self.outputs = outputs
        self.input_scale = input_scale
        self.env = env
        self.name = name
        self.seed: int | None = None  # of the training, where it is known
        self.sha256: str | None = None
        self._checked = False
        self._form: tuple[int, torch.dtype] | None = None  # A and the type of the outputs, known once called

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; NrmapError for a wrong `state_shape`, `outputs`, `input_scale`, `env` or `name`."""
        super().__setattr__(name, _SETTINGS[name](value) if name in _SETTINGS else value)

    def __call__(self, states: Tensor) -> Tensor:
        """Outputs [N, A] of uint8 `states` [N, C, H, W]; NrmapError for other states and, on a CPU, for NaN outputs."""
        if self._checked:
            check_states(states, self.state_shape)
        else:
            self.check(states)
        outputs = self._run(super().__call__, states)
        # A GPU must not be waited for.
        self._expect(outputs.device.type != "cpu" or not bool(outputs.isnan().any()), "its outputs are NaN")
        return outputs if torch.is_grad_enabled() else outputs.detach()  # which may have made a Parameter of them

    def forward(self, states: Tensor) -> Tensor:
        """Outputs [N, A] of uint8 `states` [N, C, H, W], unchecked; `nrmap.ablation` records this call."""
        return self.function(states if self.input_scale is None else states.float() * self.input_scale)

    def train(self, mode: bool = True) -> "Agent":
        """Set the training or evaluation mode, as in any module; the next call checks the function again."""
        self._checked = False
        super().train(mode)
        return self

    def named_modules(self, *args: Any, **options: Any) -> Iterator[Any]:
        """As in nn.Module, which finds parameters and buffers with it; NrmapError if the code of a layer fails."""
        with code_of_others(f"{self.label} cannot be used"):
            return iter(list(super().named_modules(*args, **options)))

    @property
    def device(self) -> torch.device:
        """The device of the function's first parameter or buffer; the CPU for a function without any."""
        tensors = itertools.chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def method(self) -> str:
        """The field `method` of the agent's records: its name, which for a Policy is the training method."""
        return self.name

    @property
    def game(self) -> str:
        """The agent's game in records and folders, `NO_GAME` for an agent without an environment."""
        return NO_GAME if self.env is None else self.env.game

    @property
    def label(self) -> str:
        """The agent's name in figures and progress bars."""
        return self.name if self.env is None else f"{self.env.game}/{self.name}"

    def for_attacks(self) -> Callable[[Tensor], Tensor]:
        """The agent as a differentiable function of float states [N, C, H, W] in [0, 1], to outputs [N, A].

        An attack of radius ε thus moves the function's own input by up to ε·255·`input_scale`. Subclasses may copy
        the weights and may shift all outputs of a state equally. Raises NrmapError for `input_scale=None`, and for
        hooks or a `forward` of the agent itself. On a CPU the returned function raises it for NaN or infinite outputs.
        """
        function, scale = self.function, self.input_scale
        if scale is None:
            raise NrmapError("input_scale=None hands the function uint8 states, which have no gradient to attack with")
        own = acts_as_its_type(self) and type(self).forward is Agent.forward
        self._expect(own, "attacks pass by hooks and methods of the agent itself: put them into its function")
        factor = 255 * scale

        def outputs_of(states: Tensor) -> Tensor:
            outputs = self._run(function, states * factor)  # a copy, which the function may change
            # A GPU captures these calls, and must not be waited for.
            finite = outputs.device.type != "cpu" or bool(outputs.isfinite().all())
            self._expect(finite, "its outputs are NaN or infinite")
            return outputs

        return outputs_of

    @torch.no_grad()
    def check(self, states: Tensor) -> None:
        """Raise NrmapError unless the function can be mapped: a fixed function of each state, to [N, A], A ≥ 2.

        It is called on the first four of `states`, uint8 [N, C, H, W], the first one mirrored, and the first one
        inverted (255 − s): twice as one batch, then one at a time. Outputs must be finite and agree up to `ROUNDING`.
        Dropout, batch normalisation and noisy layers must not be in training mode.
        """
        check_states(states, self.state_shape)
        for name, layer in self.named_modules():
            noisy = isinstance(layer, _NOT_FIXED_IN_TRAINING) or "noisy" in type(layer).__name__.lower()
            what = f"its {type(layer).__name__} at {name!r}"
            self._expect(not (noisy and layer.training), f"{what} is in training mode: call eval() on it")
        probe = torch.cat([states[:PROBE_STATES], states[:1].flip(-1), 255 - states[:1]])
        seen = probe.clone()
        self._form = None  # the function may have been replaced
        together, again = self._run(self.forward, probe).double(), self._run(self.forward, probe).double()
        apart = torch.cat([self._run(self.forward, state[None]).double() for state in probe])
        self._expect(torch.equal(probe, seen), "it changes the states that it is given")
        self._expect(bool(together.isfinite().all()), "its outputs are NaN or infinite")
        usual = usual_actions(together)  # others may round by more than usual outputs differ
        together, again, apart = together[:, usual], again[:, usual], apart[:, usual]
        size, spread = float(together.abs().max()), float((together.amax(dim=0) - together.amin(dim=0)).max())
        batched = ROUNDING * max(1.0, size)
        if spread > 64 * torch.finfo(torch.float32).eps * size:  # the states differ by more than rounding
            batched = min(batched, spread / 4)
        for found, way, allowed in (
            (again, "called twice on the same states", ROUNDING * size),
            (apart, "given one state at a time and in a batch", batched),
        ):
            difference = float((found - together).abs().max())
            self._expect(
                difference <= allowed,
                f"{way}, its outputs differ by {difference:.2g} (expected ≤ {allowed:.2g}): "
                "it must be a fixed function of the state, without noise or training mode",
            )
        self._checked = True

    def _run(self, function: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
        """Return `function(states)`, [N, A]; NrmapError if it raises, or if A or the type differ from earlier calls."""
        try:
            before = states.shape
            outputs = function(states)
            self._expect(states.shape == before, "it changes the states that it is given")
            self._check_outputs(outputs, states)
            return outputs.clone()  # the function may reuse its memory in the next call
        except (NrmapError, KeyboardInterrupt):
            raise
        except BaseException as error:  # such as SystemExit
            dtypes = {weight.dtype for weight in self.parameters() if weight.is_floating_point()} - {torch.float32}
            hint = f" (its weights are {dtypes.pop()}, its states float32: call float() on it)" if dtypes else ""
            failure = f"{type(error).__name__}: {first_line(error)}{hint}"
            why = f"its function fails on states of shape {list(states.shape)} with {failure}"
            raise NrmapError(f"{self.label} cannot be used: {why}") from error

    def _check_outputs(self, outputs: Tensor, states: Tensor) -> None:
        is_one = isinstance(outputs, Tensor) and is_dense(outputs)
        self._expect(
            is_one,
            f"its function returns a {type(outputs).__name__}: expected one tensor [N, A], dense and with values",
        )
        shape, count = list(outputs.shape), len(states)
        fits = len(shape) == 2 and shape[0] == count and shape[1] >= 2
        self._expect(fits, f"its outputs for {count} states have shape {shape}: expected [{count}, A] with A ≥ 2")
        known = outputs.dtype in _FLOATS
        self._expect(known, f"its outputs are {outputs.dtype}: expected floating-point numbers of 16 to 64 bits")
        there = outputs.device == states.device
        self._expect(there, f"its outputs are on {outputs.device}, the states on {states.device}")
        form = shape[1], outputs.dtype
        self._form = self._form or form
        same = f"expected {self._form[0]} of {self._form[1]}, as before"
        self._expect(form == self._form, f"its outputs for a state are now {shape[1]} of {outputs.dtype}: {same}")

    def _expect(self, fits: bool, why_not: str) -> None:
        check(fits, f"{self.label} cannot be used: {why_not}")


def _state_shape(sides: Any) -> tuple[int, int, int]:
    try:
        channels, height, width = (operator.index(side) for side in sides)
    except Exception as error:  # of the code in their class
        raise NrmapError(f"state_shape={shortened(sides)}: expected (channels, height, width)") from error
    check(min(channels, height, width) >= 1, f"state_shape={shortened(sides)}: expected sides of at least 1")
    return channels, height, width


def _outputs(outputs: Any) -> Any:
    if not isinstance(outputs, str) or outputs not in get_args(Outputs):
        raise unknown_choice("outputs", outputs, get_args(Outputs))
    return outputs


def _input_scale(scale: Any) -> float | None:
    scale = scale.item() if isinstance(scale, np.generic) else scale
    number = isinstance(scale, float | int) and not isinstance(scale, bool)
    fits = scale is None or (number and 0 < scale < math.inf)
    check(fits, f"input_scale={shortened(scale)}: expected a finite number > 0, or None for uint8 input")
    return scale  # type: ignore[no-any-return]


def _env(env: Any) -> EnvSpec | None:
    check(env is None or isinstance(env, EnvSpec), f"env={shortened(env)}: expected nrmap.EnvSpec(GAME, …)")
    return env  # type: ignore[no-any-return]


def _name(name: Any) -> str:
    check(isinstance(name, str), f"name={shortened(name)}: expected a word")
    return name  # type: ignore[no-any-return]


_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "state_shape": _state_shape, "outputs": _outputs, "input_scale": _input_scale, "env": _env, "name": _name
}  # fmt: skip


def usual_actions(outputs: Tensor) -> Tensor:
    """Bool [A]: False for actions with |outputs| [N, A] above 1,000 times those of the two best, as of masked ones."""
    two_best = outputs.topk(2, dim=-1).values.abs().max()
    return outputs.abs().flatten(0, -2).amax(dim=0) <= MOST_UNUSUAL * two_best


def is_dense(tensor: Tensor) -> bool:
    """Whether `tensor` holds all its numbers: it is not sparse, nested, quantised or on the meta device."""
    return tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)


def check_states(states: Tensor, state_shape: Sequence[int]) -> None:
    """Raise NrmapError unless `states` is uint8 [N, C, H, W] with N ≥ 1, where (C, H, W) is `state_shape`."""
    check(isinstance(states, Tensor), f"states are a {type(states).__name__}: expected a tensor")
    check(is_dense(states), "states are a sparse or nested tensor or one without values: expected a dense one")
    fits = states.dtype == torch.uint8 and states.ndim == 4 and tuple(states.shape[1:]) == tuple(state_shape)
    expected = f"expected torch.uint8 [N, {', '.join(map(str, state_shape))}] with N ≥ 1"
    check(fits and len(states) > 0, f"states are {states.dtype} {list(states.shape)}: {expected}")
