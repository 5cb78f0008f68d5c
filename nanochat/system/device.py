"""Which device computes, in which number format, and what each device needs to do it well.

A Device object answers the questions that would otherwise be an `if` in every script.
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from dataclasses import dataclass

import psutil
import torch

from nanochat.system.cli import UserError
from nanochat.system.log import say

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """Where and how a model computes. `type` is cuda, mps or cpu; `dtype` that of activations."""

    type: str
    dtype: torch.dtype
    compile: bool

    @property
    def torch(self) -> torch.device:
        """The device in torch's own words."""
        return torch.device(self.type)

    def synchronize(self) -> None:
        """Wait for what was started; call before reading a clock."""
        if self.type == "cuda":
            torch.cuda.synchronize()
        elif self.type == "mps":
            torch.mps.synchronize()

    def empty_cache(self) -> None:
        """Give back what the allocator keeps, after memory ran out."""
        if self.type == "cuda":
            torch.cuda.empty_cache()
        elif self.type == "mps":
            torch.mps.empty_cache()

    def memory_bytes(self) -> int:
        """Bytes in use at the peak (cuda, cpu) or now (mps keeps no peak)."""
        if self.type == "cuda":
            return torch.cuda.max_memory_allocated()
        if self.type == "mps":
            return torch.mps.current_allocated_memory()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # KiB on Linux, bytes on macOS


def default_dtype(device_type: str) -> str:
    """float32 but on CUDA: bfloat16 elsewhere saves memory and costs time.

    >>> default_dtype("mps"), default_dtype("cuda")
    ('float32', 'bfloat16')
    """
    return "bfloat16" if device_type == "cuda" else "float32"


def default_compile(device_type: str) -> bool:
    """torch.compile pays on CUDA; on MPS it is immature, on CPU it costs a minute before step 1.

    >>> default_compile("mps"), default_compile("cuda")
    (False, True)
    """
    return device_type == "cuda"


def open_device(
    wanted: str | None = None, dtype: str | None = None, compile: bool | None = None
) -> Device:
    """Find and prepare the device; None means "the best there is".

    Prints `Autodetected device type: mps` where it chose. Raises UserError for a device that torch
    cannot use, with the reason.
    """
    found = _best_device()
    if wanted is None:
        say(f"Autodetected device type: {found}")
        if found == "cpu" and shutil.which("nvidia-smi") and not torch.cuda.is_available():
            say("An NVIDIA driver is here, but this torch can't use it: training on the CPU. ")
    elif wanted != "cpu" and wanted != found:
        raise UserError(f"--device_type={wanted} is not usable by this torch; there is: {found}")
    device_type = wanted or found
    if device_type == "cpu":
        torch.set_num_threads(cpu_threads())
        keep_memory()
    elif device_type == "cuda":
        torch.set_float32_matmul_precision("high")
    return Device(
        device_type,
        DTYPES[dtype or default_dtype(device_type)],
        default_compile(device_type) if compile is None else compile,
    )


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def cpu_threads() -> int:
    """All physical cores, but no more than the scheduler and the cgroup give this process."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = min(psutil.cpu_count(logical=False) or 1, allowed or 1)
    try:
        quota, period = open("/sys/fs/cgroup/cpu.max").read().split()  # noqa: SIM115
        if quota != "max":
            threads = min(threads, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup v2 here
    return max(1, threads)


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of giving it back to the kernel and asking again.

    Every step frees and allocates the same large buffers; by default each is a fresh mmap whose
    pages fault one by one, which can cost as much time as the arithmetic (bench/train_step.py).
    Returns whether it took effect; other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False  # musl
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # <malloc.h>
    return bool(
        mallopt(m_mmap_max, 0)
        and mallopt(m_trim_threshold, 2**31 - 1)
        and mallopt(m_top_pad, 64 * 2**20)
    )
