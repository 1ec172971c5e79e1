"""Device, precision, memory settings and provenance, also on machines other than this one."""

import ctypes
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nrmap
from nrmap.support import runtime
from nrmap.support.errors import NrmapError
from nrmap.support.runtime import choose_device, choose_precision, keep_freed_memory, peak_memory_mb, provenance


@pytest.fixture
def flags():
    """Flags of torch that a test may change."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32
    yield cudnn, matmul
    cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = before


def test_auto_takes_what_there_is_and_float32_is_float32_on_cuda(monkeypatch, flags):
    cudnn, matmul = flags
    cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32 = False, True, True
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(NrmapError, match="no CUDA device is available"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cpu").type == "cpu"
    assert (cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32) == (False, True, True)
    assert choose_device("auto").type == "cuda"
    assert (cudnn.deterministic, cudnn.allow_tf32, matmul.allow_tf32) == (True, False, False)


@pytest.mark.parametrize("names", [(), ("avx512_bf16",), ("amx_bf16",)])
def test_precision_is_the_one_asked_for_or_bfloat16_where_the_cpu_has_it(monkeypatch, names):
    present = {"avx512_bf16": False, "avx512_f": True} | dict.fromkeys(names, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: present)
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == (torch.bfloat16 if names else torch.float32)
    assert choose_precision("float32", cpu) == choose_precision("auto", torch.device("cuda")) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16


@pytest.mark.parametrize("largest_block", [1 << 30, 32 << 20, 0])
def test_memory_is_kept_as_far_as_the_c_library_allows(largest_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted = {}

    def mallopt(parameter: int, value: int) -> int:
        fits = parameter == -1 or value <= largest_block
        accepted.update({parameter: value} if fits else {})
        return int(fits)

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.0"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory() == (largest_block > 0)
    assert accepted == {-1: (1 << 31) - 1} | ({-3: largest_block} if largest_block else {})
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("called the C library"))
    assert not keep_freed_memory()


@pytest.mark.parametrize(("system", "peak"), [("linux", 3 << 10), ("darwin", 3 << 20)])
def test_peak_memory_is_in_mebibytes(system: str, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peak))
    assert peak_memory_mb() == 3.0


def test_provenance_of_a_clone_and_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(folder: Path, *arguments: str) -> str:
        own = [part for setting in ("user.name=n", "user.email=e", "commit.gpgsign=false") for part in ("-c", setting)]
        command = ["git", "-C", str(folder), *own, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    found = provenance()
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["nrmap"] == nrmap.__version__
    assert git(Path(nrmap.__file__).parent, "rev-parse", "HEAD").startswith(found["commit"].removesuffix("+"))
    # Installed in a folder of somebody else's repository.
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "m")
    monkeypatch.setattr(runtime, "__file__", shutil.copy(runtime.__file__, tmp_path))
    assert provenance()["commit"] is None
