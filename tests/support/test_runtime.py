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
from nrmap.support.errors import NrmapError
from nrmap.support.runtime import choose_device, choose_precision, keep_freed_memory, peak_memory_mb, provenance


def test_auto_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_float32_is_float32_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [part.allow_tf32 for part in parts]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    try:
        for part in parts:
            part.allow_tf32 = True
        choose_device("cpu")
        assert [part.allow_tf32 for part in parts] == [True, True]
        choose_device("auto")
        assert [part.allow_tf32 for part in parts] == [False, False]
    finally:
        for part, allowed in zip(parts, before, strict=True):
            part.allow_tf32 = allowed


def test_cuda_without_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NrmapError, match="no CUDA device is available"):
        choose_device("cuda")


def test_precision_is_the_one_asked_for() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16
    assert choose_precision("auto", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("names", [(), ("avx512_bf16",), ("amx_bf16",)])
def test_auto_is_bfloat16_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    present = {"avx512_bf16": False, "avx512_f": True} | dict.fromkeys(names, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: present)
    assert choose_precision("auto", torch.device("cpu")) == (torch.bfloat16 if names else torch.float32)


@pytest.mark.parametrize("largest_block", [1 << 30, 32 << 20, 0])
def test_memory_is_kept_as_far_as_the_c_library_allows(largest_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {}

    def mallopt(parameter: int, value: int) -> int:
        accepted = parameter == -1 or value <= largest_block
        if accepted:
            settings[parameter] = value
        return int(accepted)

    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.0"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory() == (largest_block > 0)
    assert settings == {-1: (1 << 31) - 1} | ({-3: largest_block} if largest_block else {})


@pytest.mark.parametrize("libc", ["", "musl"])
def test_memory_settings_of_other_c_libraries_are_left_alone(libc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("called the C library"))
    assert not keep_freed_memory()


@pytest.mark.parametrize(("system", "peak"), [("linux", 3 << 10), ("darwin", 3 << 20)])
def test_peak_memory_is_in_mebibytes(system: str, peak: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=peak))
    assert peak_memory_mb() == 3.0


def test_provenance_of_a_clone_and_of_an_installed_package(tmp_path: Path) -> None:
    package = Path(nrmap.__file__).parent
    commit = subprocess.run(
        ["git", "-C", str(package), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout
    found = provenance()
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"]["nrmap"] == nrmap.__version__
    assert commit.startswith(found["commit"].removesuffix("+"))
    # Installed in a folder of somebody else's repository.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    user = ["-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "-C", str(tmp_path), *user, "commit", "-q", "--allow-empty", "-m", "m"], check=True)
    shutil.copytree(package, tmp_path / "site-packages/nrmap", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from nrmap.support.runtime import provenance; print(provenance()['commit'])"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site-packages", capture_output=True, text=True, check=True
    ).stdout
    assert printed == "None\n"
