"""What the process asks of its machine: the device, threads, and memory that stays."""

import ctypes
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from nrmap.support.errors import NrmapError, unknown_choice

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = (1 << 31) - 1
# The largest blocks to keep. Some versions of glibc refuse more than 32 MiB, which is enough for gradients.
_LARGEST_BLOCKS = (1 << 30, 32 << 20)


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for the next allocation; True where it takes both settings.

    Every update frees and allocates gradients of some 13 MB. By default glibc returns them to
    the system and takes them back page by page, thousands of page faults an update, which on two
    cores costs a quarter of the update's time. Peak memory does not change.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    keeps_blocks = any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS)
    keeps_the_top = libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
    return bool(keeps_blocks and keeps_the_top)


_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; NrmapError for another name and for CUDA where there is none.

    Choosing CUDA also turns TensorFloat-32 off for the whole process: by default convolutions there
    round their inputs to 10 bits, and what is called float32 would be neither that nor good for a proof.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise unknown_choice("device", name, ("auto", "cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise NrmapError("device=cuda: no CUDA device is available here; use device=cpu or device=auto")
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    if use_cuda:
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if use_cuda else "cpu")


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The precision of a training's large matrix products: `auto`, `float32` or `bfloat16`.

    `auto` is bfloat16 on a CPU with instructions for it, where an update takes two thirds of the
    time, and float32 elsewhere: bfloat16 also works where the CPU must emulate it, at a fifth of
    float32's speed. NrmapError for another name.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise unknown_choice("precision", name, ("auto", "float32", "bfloat16"))
    native = device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in _BFLOAT16_INSTRUCTIONS)
    return torch.bfloat16 if name == "bfloat16" or (name == "auto" and native) else torch.float32


def provenance() -> dict[str, Any]:
    """Where a result came from: versions and commit. Informs, and enters no identity."""
    names = ("torch", "ale-py", "gymnasium", "numpy", "nrmap")
    versions = {}
    for name in names:
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
    """The commit of the source tree, with `+` behind it when tracked files differ from it; None outside a clone."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
