"""Functions as CUDA graphs: what they do without one, and with one where there is a GPU."""

import pytest
import torch

from nrmap.support.cuda_graphs import WARM_UP_CALLS, Graphed

CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def doubled(values: torch.Tensor) -> torch.Tensor:
    return 2 * values


def test_without_a_gpu_it_is_the_function():
    graphed = Graphed(doubled, CPU, enabled=True)
    for call in range(2 * WARM_UP_CALLS):
        assert graphed(torch.full((3,), float(call))).tolist() == [2.0 * call] * 3


@pytest.mark.cuda
@needs_cuda
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
@needs_cuda
def test_what_a_graph_cannot_hold_runs_eagerly(caplog):
    device, generators = torch.device("cuda"), [torch.Generator("cuda").manual_seed(3) for _ in range(2)]

    def function(values):
        return torch.rand(2, generator=generators[0], device=device) * float(values.sum())

    graphed = Graphed(function, device, enabled=True, generators=generators[:1])
    for call in range(WARM_UP_CALLS + 3):
        expected = torch.rand(2, generator=generators[1], device=device) * (2.0 * call)
        assert torch.equal(graphed(torch.full((2,), float(call))), expected)
    assert len(caplog.records) == 1
