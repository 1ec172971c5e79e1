"""The device is the one asked for, or a clear error."""

import time

import pytest
import torch

from nrmap.errors import NrmapError
from nrmap.runtime import choose_device, choose_precision, provenance


def test_cpu_is_cpu() -> None:
    assert choose_device("cpu") == torch.device("cpu")


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_cuda_without_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NrmapError, match="no CUDA device is available"):
        choose_device("cuda")


def test_an_unknown_device() -> None:
    with pytest.raises(NrmapError, match="unknown device 'gpu'"):
        choose_device("gpu")


def test_precision_is_the_one_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert choose_precision("auto", torch.device("cuda")) == torch.float32
    with pytest.raises(NrmapError, match="unknown precision 'float16'"):
        choose_precision("float16", cpu)


@pytest.mark.parametrize("names", [(), ("avx512_bf16",), ("amx_bf16",)])
def test_auto_is_bfloat16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    present = {"avx512_bf16": False, "avx512_f": True} | dict.fromkeys(names, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: present)
    assert choose_precision("auto", torch.device("cpu")) == (torch.bfloat16 if names else torch.float32)


def test_auto_never_takes_an_emulated_precision() -> None:
    """Emulated, a product in bfloat16 was measured at 5 times float32's time."""
    assert _fastest_product(choose_precision("auto", torch.device("cpu"))) < 2.5 * _fastest_product(torch.float32)


def _fastest_product(dtype: torch.dtype) -> float:
    matrix = torch.ones(768, 768, dtype=dtype)
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def test_provenance_names_versions() -> None:
    assert provenance()["versions"]["torch"] == torch.__version__
