"""Functions of tensors as CUDA graphs: all their kernels with one launch."""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# Before the capture libraries allocate their workspaces and Adam its moments.
WARM_UP_CALLS = 3


class Graphed:
    """`function` of tensors with fixed shapes, from its fourth call on as a CUDA graph.

    A graph replays the operations of its capture on the same addresses: numbers and branches of Python
    are frozen in it, so everything that changes between calls must be an argument or a tensor that
    keeps its address. The result is overwritten by the next call. Where the capture fails, calls stay
    eager and one warning has the reason.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        device: torch.device,
        *,
        enabled: bool,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """Arguments are copied to `device`. `generators` are all generators from which `function` draws."""
        self._function, self._device, self._generators = function, device, generators
        self._name = getattr(function, "func", function).__qualname__  # of a partial: of its function
        self.enabled = enabled and device.type == "cuda"
        self._calls = 0
        self._arguments: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None

    def __call__(self, *arguments: Tensor) -> Tensor:
        """`function(*arguments)`, computed on the device."""
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
            except RuntimeError as error:
                self.enabled = False
                reason: BaseException = error
                while reason.__context__ is not None:  # the end of a failed capture fails too
                    reason = reason.__context__
                log.warning("no CUDA graph of %s, it runs eagerly: %s", self._name, str(reason).splitlines()[0])
                # Generators stay in the capture that failed until another one ends.
                self._captured(lambda: torch.zeros(1, device=self._device))
                return self._function(*self._arguments)
        assert self._graph is not None
        assert self._result is not None
        self._graph.replay()
        return self._result

    def _on_another_stream(self) -> Tensor:
        """An eager call on a stream of its own, as a capture needs them before it."""
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
