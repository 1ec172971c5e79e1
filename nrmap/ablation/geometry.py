"""Index arithmetic of convolutions: the outputs that a changed input reaches, one axis at a time."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """Kernel indices that read consecutive inputs: index `tap` + k reads input number `input` + k, 0 ≤ k < `length`."""

    tap: int
    input: int
    length: int


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: output o reads input o·stride − before + t·dilation at kernel index (tap) t."""

    kernel: int
    stride: int
    before: int  # zeros before the first input
    after: int  # zeros behind the last input
    dilation: int

    @property
    def span(self) -> int:
        """The receptive field of one output: the number of inputs from the first to the last that it reads."""
        return (self.kernel - 1) * self.dilation + 1

    def outputs(self, inputs: int) -> int:
        """The number of outputs for `inputs` inputs."""
        return (inputs + self.before + self.after - self.span) // self.stride + 1

    def first_input(self, output: int) -> int:
        """The index of the input that kernel index 0 of `output` reads; negative in the padding."""
        return output * self.stride - self.before

    def tap(self, source: int, output: int) -> int | None:
        """Return the kernel index at which `output` reads input `source`, or None if `output` does not read it."""
        tap, rest = divmod(source - self.first_input(output), self.dilation)
        return tap if rest == 0 and 0 <= tap < self.kernel else None

    def readers(self, changed: range, outputs: int) -> range:
        """Return the outputs, of `outputs` in all, with an input of `changed` in their receptive field; may be none."""
        first = -(-(changed[0] + self.before - self.span + 1) // self.stride)  # rounded up
        last = (changed[-1] + self.before) // self.stride
        return range(max(first, 0), min(last, outputs - 1) + 1)

    def sources(self, output: int, inputs: int) -> range:
        """Return the inputs, of `inputs` in all, in the receptive field of `output`; may be none."""
        first = self.first_input(output)
        return range(max(first, 0), min(first + self.span, inputs))

    def runs(self, output: int, changed: range) -> list[Run]:
        """Return the kernel indices at which `output` reads inputs in `changed`, as runs, in ascending order.

        With dilation 1 there is at most one run; with a larger one each run has one index.
        """
        first = self.first_input(output)
        taps = [tap for tap in range(self.kernel) if first + tap * self.dilation in changed]
        if taps and self.dilation == 1:
            return [Run(taps[0], first + taps[0], len(taps))]
        return [Run(tap, first + tap * self.dilation, 1) for tap in taps]

    def taps(self, sources: Sequence[int], outputs: Sequence[int]) -> Tensor:
        """Return the kernel index at which each output reads each source, int64 [sources, outputs] on the CPU.

        Where an output does not read a source, the index is `kernel`.
        """
        taps = [[self.tap(source, output) for output in outputs] for source in sources]
        return torch.tensor([[self.kernel if tap is None else tap for tap in row] for row in taps], device="cpu")


def strips(axis: Axis, inputs: int) -> list[range]:
    """Group neighbouring inputs of an axis, of `inputs` in all, that lie in the receptive fields of the same outputs.

    Inputs in no receptive field are left out. Kernel 8 and stride 4 give blocks of 4.
    """
    outputs = axis.outputs(inputs)
    groups = itertools.groupby(range(inputs), key=lambda source: axis.readers(range(source, source + 1), outputs))
    blocks = [list(block) for reached, block in groups if reached]
    return [range(block[0], block[-1] + 1) for block in blocks]
