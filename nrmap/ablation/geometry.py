"""Which outputs of a convolution a changed input can reach, one axis at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """Neighbouring taps of a kernel on neighbouring inputs: tap + k reads input + k, for k < length."""

    tap: int
    input: int
    length: int


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: tap t of output o reads input o·stride − padding + t·dilation, 0 ≤ t < kernel."""

    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def span(self) -> int:
        """The distance from the first to the last input that one output reads, both included."""
        return (self.kernel - 1) * self.dilation + 1

    def outputs(self, inputs: int) -> int:
        """How many outputs there are for so many inputs."""
        return (inputs + 2 * self.padding - self.span) // self.stride + 1

    def first_input(self, output: int) -> int:
        """The input under tap 0 of `output`; negative in the padding."""
        return output * self.stride - self.padding

    def tap(self, source: int, output: int) -> int | None:
        """The tap with which `output` reads the input `source`, None where it does not."""
        tap, rest = divmod(source - self.first_input(output), self.dilation)
        return tap if rest == 0 and 0 <= tap < self.kernel else None

    def readers(self, changed: range, outputs: int) -> range:
        """From the first to the last of so many outputs that reads any input in `changed`; may be empty."""
        first = -(-(changed[0] + self.padding - self.span + 1) // self.stride)  # rounded up
        last = (changed[-1] + self.padding) // self.stride
        return range(max(first, 0), min(last, outputs - 1) + 1)

    def sources(self, output: int, inputs: int) -> range:
        """From the first to the last of so many inputs that `output` reads; may be empty."""
        first = self.first_input(output)
        return range(max(first, 0), min(first + self.span, inputs))

    def runs(self, output: int, changed: range) -> list[Run]:
        """The taps of `output` on inputs in `changed`: one run, or with dilation one for every tap."""
        first = self.first_input(output)
        taps = [tap for tap in range(self.kernel) if first + tap * self.dilation in changed]
        if taps and self.dilation == 1:
            return [Run(taps[0], first + taps[0], len(taps))]
        return [Run(tap, first + tap * self.dilation, 1) for tap in taps]

    def taps(self, sources: Sequence[int], outputs: Sequence[int]) -> Tensor:
        """The taps [sources, outputs] with which every output reads every source; `kernel` stands for none."""
        taps = [[self.tap(source, output) for output in outputs] for source in sources]
        return torch.tensor([[self.kernel if tap is None else tap for tap in row] for row in taps])


def strips(axis: Axis, inputs: int) -> list[range]:
    """The inputs of an axis in blocks that reach the same outputs; inputs that reach none are left out.

    With kernel 8 and stride 4 these are blocks of 4.
    """
    outputs = axis.outputs(inputs)
    blocks: list[range] = []
    for source in range(inputs):
        reached = axis.readers(range(source, source + 1), outputs)
        if not reached:
            continue
        if blocks and blocks[-1].stop == source and axis.readers(blocks[-1], outputs) == reached:
            blocks[-1] = range(blocks[-1].start, source + 1)
        else:
            blocks.append(range(source, source + 1))
    return blocks
