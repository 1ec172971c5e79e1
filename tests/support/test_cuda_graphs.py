"""Functions as CUDA graphs: what they do without one, and with one where there is a GPU."""

import logging

import pytest
import torch

from nrmap.support.cuda_graphs import WARM_UP_CALLS, Graphed


def doubled(values: torch.Tensor) -> torch.Tensor:
    return 2 * values


def test_where_a_capture_fails_calls_go_on_eagerly_and_one_line_says_why(monkeypatch, caplog):
    captured = []

    def fail_once(self, function):
        captured.append(function())
        if len(captured) == 1:
            try:
                raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
            finally:
                raise RuntimeError("the capture was invalidated")

    monkeypatch.setattr(Graphed, "_captured", fail_once)
    monkeypatch.setattr(Graphed, "_on_another_stream", lambda self: self._function(*self._arguments))
    graphed = Graphed(doubled, torch.device("cpu"), enabled=True)
    graphed.enabled = True  # as on a GPU
    with caplog.at_level(logging.WARNING):
        results = [graphed(torch.tensor([float(call)])).tolist() for call in range(WARM_UP_CALLS + 3)]
    assert results == [[2.0 * call] for call in range(WARM_UP_CALLS + 3)]
    why = "operation not permitted when stream is capturing"
    assert caplog.messages == [f"no CUDA graph of doubled, it runs eagerly: {why}"]


@pytest.mark.cuda
def test_a_graph_gives_the_results_of_its_function_and_the_same_random_numbers():
    generators = [torch.Generator("cuda").manual_seed(3) for _ in range(2)]
    total = [torch.zeros((), device="cuda") for _ in range(2)]

    def made(index):
        def function(values):
            total[index].add_(values.sum())
            return total[index] + torch.rand(4, generator=generators[index], device="cuda")

        return Graphed(function, torch.device("cuda"), enabled=index == 0, generators=[generators[index]])

    graphed, eager = made(0), made(1)
    for call in range(10):
        values = torch.full((5,), float(call))
        assert torch.equal(graphed(values), eager(values))
    assert graphed.enabled
    assert graphed._graph is not None


@pytest.mark.cuda
def test_what_a_graph_cannot_hold_runs_eagerly(caplog):
    device, generators = torch.device("cuda"), [torch.Generator("cuda").manual_seed(3) for _ in range(2)]

    def function(values):
        return torch.rand(2, generator=generators[0], device=device) * float(values.sum())

    graphed = Graphed(function, device, enabled=True, generators=generators[:1])
    for call in range(WARM_UP_CALLS + 3):
        expected = torch.rand(2, generator=generators[1], device=device) * (2.0 * call)
        assert torch.equal(graphed(torch.full((2,), float(call))), expected)
    assert len(caplog.records) == 1
