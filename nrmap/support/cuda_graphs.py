"""Run functions of tensors as CUDA graphs: one launch for all kernels of a call."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nrmap.support.errors import NrmapError

log = logging.getLogger(__name__)

# Eager calls in which libraries allocate workspaces and Adam its moments: that must precede the capture.
WARM_UP_CALLS = 3


class Graphed:
    """Calls `function` with tensors of fixed shapes, from the fourth call on by replaying a CUDA graph.

    A graph repeats its captured operations on the same addresses. Python's numbers and branches are frozen, so
    everything that changes between calls must be an argument or a tensor that keeps its address. The next call
    overwrites the result of a replay. If the capture fails, later calls are eager and one warning states the reason.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        device: torch.device,
        *,
        enabled: bool,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """`generators` are all random generators that `function` draws from.

        Unless `enabled` and on CUDA, every call runs eagerly.
        """
        self._function, self._device, self._generators = function, device, generators
        self._name = getattr(function, "func", function).__qualname__  # a partial has no name
        self.enabled = enabled and device.type == "cuda"
        self._calls = 0
        self._arguments: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Return the result of `function` for `arguments`, which are first copied to the device."""
        if not self.enabled:
            return self._function(*(argument.to(self._device, non_blocking=True) for argument in arguments))
        if not self._calls:
            self._arguments = [torch.empty_like(argument, device=self._device) for argument in arguments]
        for kept, argument in zip(self._arguments, arguments, strict=True):
            kept.copy_(argument, non_blocking=True)
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            return self._on_another_stream()
        if self._graph is None:
            try:
                self._graph, self._result = self._captured(lambda: self._function(*self._arguments))
            except (RuntimeError, NrmapError) as error:  # of CUDA, or of an agent whose function met it
                self.enabled = False
                reason: BaseException = error
                while reason.__context__ is not None:  # ending a failed capture raises another error
                    reason = reason.__context__
                log.warning("no CUDA graph of %s, it runs eagerly: %s", self._name, str(reason).splitlines()[0])
                # Generators stay registered in the failed capture until another capture ends.
                self._captured(lambda: torch.zeros(1, device=self._device))
                return self._function(*self._arguments)
        assert self._graph is not None
        assert self._result is not None
        self._graph.replay()
        return self._result

    def _on_another_stream(self) -> Tensor:
        """Call `function` eagerly on a separate stream, as PyTorch requires of calls before a capture."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            result = self._function(*self._arguments)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        result.record_stream(torch.cuda.current_stream(self._device))
        return result

    def _captured(self, function: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
        return graph, result
