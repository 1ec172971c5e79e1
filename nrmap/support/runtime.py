"""Device, precision, memory settings and provenance of this process."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from nrmap.support.errors import NrmapError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = (1 << 31) - 1
# The largest blocks to keep. Some versions of glibc refuse more than 32 MiB, which is enough for gradients.
_LARGEST_BLOCKS = (1 << 30, 32 << 20)
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next allocation; return False if glibc refuses or is not the C library.

    Each training update frees and allocates gradients of about 13 MB. By default glibc returns them to the system, and
    taking them back costs thousands of page faults: a quarter of an update's time on two cores. Peak memory does not
    change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    keeps_blocks = any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS)
    keeps_the_top = libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
    return bool(keeps_blocks and keeps_the_top)


def choose_device(name: str) -> torch.device:
    """Return the device for `cpu`, `cuda` or `auto` (CUDA if available); any other `name` counts as `cpu`.

    Choosing CUDA turns TensorFloat-32 off for the whole process and selects deterministic convolutions. By default,
    convolutions on CUDA round float32 inputs to 10 bits, which breaks the rounding bounds of certificates, and sum
    gradients in an order that changes from run to run. Raises NrmapError for `cuda` where CUDA is not available.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise NrmapError("device=cuda: no CUDA device is available here; use device=cpu or device=auto")
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if use_cuda:
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if use_cuda else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the precision of a training's large matrix products for `auto`, `float32` or `bfloat16`.

    `auto` is bfloat16 on a CPU with instructions for it, where an update takes two thirds of float32's time, and
    float32 elsewhere, because emulated bfloat16 has a fifth of float32's speed. Any other `name` counts as `float32`.
    """
    native = device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in _BFLOAT16_INSTRUCTIONS)
    return torch.bfloat16 if name == "bfloat16" or (name == "auto" and native) else torch.float32


def seconds_of(work: Callable[[], Any], device: torch.device, *, warm_ups: int = 1) -> float:
    """Return the seconds of one call of `work`, including its queued kernels on `device`.

    `warm_ups` untimed calls come before it.
    """
    begun = 0.0
    for _ in range(warm_ups + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = time.perf_counter()
        work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def peak_memory_mb() -> float:
    """The peak resident memory of this process so far, in MiB."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def memory_bytes() -> int:
    """The bytes that this process may use: the machine's memory, or the limit of its container (cgroup v2) if lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # not on Linux, or "max"
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def provenance() -> dict[str, Any]:
    """Return Python, platform, library versions and commit, which are stored with results.

    Identities do not include them.
    """
    import nrmap

    versions = {"nrmap": nrmap.__version__}
    for name in ("torch", "ale-py", "gymnasium", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of this source tree, with a final `+` if tracked files are changed; None without a clone or git."""
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    describe = [*git, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        # Installed packages may lie in the folder of somebody else's repository, which does not track them.
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True, timeout=10)
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
