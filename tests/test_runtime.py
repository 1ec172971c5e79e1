"""The device is the one asked for, or a clear error."""

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
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert choose_precision("auto", cpu) == (torch.bfloat16 if native else torch.float32)
    with pytest.raises(NrmapError, match="unknown precision 'float16'"):
        choose_precision("float16", cpu)


def test_provenance_names_versions() -> None:
    assert provenance()["versions"]["torch"] == torch.__version__
