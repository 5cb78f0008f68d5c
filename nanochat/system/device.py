"""Which device computes, in which number format, and what each device needs to do it well.

A Device object answers what would otherwise be an `if` in every script.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
import sys
from dataclasses import dataclass

import psutil
import torch

from nanochat.system.errors import UserError
from nanochat.system.log import say_once

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Device:
    """Where and how a model computes. `type` is cuda, mps or cpu; `dtype` that of activations."""

    type: str
    dtype: torch.dtype
    compile: bool

    @property
    def torch(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.type)

    def synchronize(self) -> None:
        """Wait until the device is done. Call before reading a clock: it works asynchronously."""
        if self.type == "cuda":
            torch.cuda.synchronize()
        elif self.type == "mps":
            torch.mps.synchronize()

    def empty_cache(self) -> None:
        """Release what the allocator holds in reserve, after memory ran out."""
        if self.type == "cuda":
            torch.cuda.empty_cache()
        elif self.type == "mps":
            torch.mps.empty_cache()

    def memory_bytes(self) -> int:
        """Bytes in use at the peak (cuda, cpu) or now (mps keeps no peak)."""
        if self.type == "cuda":
            return torch.cuda.max_memory_allocated()
        if self.type == "mps":  # includes what Metal keeps per shape, which torch does not count
            return torch.mps.driver_allocated_memory()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # KiB on Linux, bytes on macOS


def default_dtype(device_type: str, capability: tuple[int, int] = (0, 0)) -> str:
    """bfloat16 on CUDA cards that compute in it (capability 8.0, Ampere, or later), else float32.

    Elsewhere bfloat16 saves memory and costs time: older cards emulate it, and torch.compile
    silently skips it there.

    >>> default_dtype("mps"), default_dtype("cuda", (9, 0)), default_dtype("cuda", (7, 5))
    ('float32', 'bfloat16', 'float32')
    """
    return "bfloat16" if device_type == "cuda" and capability >= (8, 0) else "float32"


def default_compile(device_type: str) -> bool:
    """torch.compile pays on CUDA; on MPS it is immature, on CPU it costs a minute before step 1.

    >>> default_compile("mps"), default_compile("cuda")
    (False, True)
    """
    return device_type == "cuda"


def open_device(
    wanted: str | None = None, dtype: str | None = None, compile: bool | None = None
) -> Device:
    """Find and prepare the device; None means the best one that works.

    Says `Autodetected device type: mps` if the choice was its own. Raises UserError, with the
    reason, for a device that torch can't use.
    """
    found, passed_over = ("cpu", None) if wanted == "cpu" else best_device()
    if wanted is None:
        say_once(f"Autodetected device type: {found}")
        if passed_over:
            say_once(f"{passed_over}. Using the CPU.")
    elif wanted != found:
        reason = passed_over or f"this machine has: {found}"
        raise UserError(f"--device_type={wanted} can't be used: {reason}")
    capability = (0, 0)
    if found == "cpu":
        if "OMP_NUM_THREADS" not in os.environ:  # else the user has said how many
            torch.set_num_threads(cpu_threads())
        keep_memory()
    elif found == "cuda":
        torch.set_float32_matmul_precision("high")
        capability = torch.cuda.get_device_capability()
        if "microsoft" in platform.release().lower():
            # Under WSL, when the card is full, the driver moves data to the computer's memory, ten
            # times slower, instead of saying so. At this share torch itself says that it is full.
            torch.cuda.set_per_process_memory_fraction(0.9)
    return Device(
        found,
        DTYPES[dtype or default_dtype(found, capability)],
        default_compile(found) if compile is None else compile,
    )


def best_device() -> tuple[str, str | None]:
    """The best device that works, and why a better one in this machine does not."""
    if torch.cuda.is_available():
        try:
            torch.zeros(1, device="cuda").add_(1).item()
        except RuntimeError as error:  # is_available only asks for a driver, not for kernels
            major, minor = torch.cuda.get_device_capability()
            card = f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"
            return "cpu", unusable_card(card, str(error))
        return "cuda", None
    if torch.backends.mps.is_available():
        return "mps", None
    if torch.backends.mps.is_built():
        return "cpu", "PyTorch needs macOS 14 or later to use the GPU of this Mac: update macOS"
    if shutil.which("nvidia-smi"):
        return "cpu", unusable_driver(torch.version.cuda)
    return "cpu", None


OLDER_CUDA = ".venv/bin/python -m pip install torch --index-url https://download.pytorch.org/whl/"


def unusable_card(card: str, error: str) -> str:
    """Why a card on which the first kernel failed is not used, and the remedy.

    >>> unusable_card("GTX 1080 (compute capability 6.1)", "no kernel image is available")[:59]
    'this PyTorch has no kernels for the GTX 1080 (compute capab'
    """
    if "no kernel image" in error:
        return (
            f"this PyTorch has no kernels for the {card}: {OLDER_CUDA}cu126 installs one that has"
        )
    return f"the {card} does not work ({(error.splitlines() or [''])[0]}); see nvidia-smi"


def unusable_driver(cuda: str | None) -> str:
    """Why torch sees no card despite a driver; cuda: the version that torch was built for."""
    if cuda is None:
        return (
            "there is an NVIDIA driver, but this PyTorch is a CPU build: "
            f"{OLDER_CUDA}cu130 installs one for CUDA"
        )
    return (
        f"the NVIDIA driver does not work with this PyTorch, which was built for CUDA {cuda}: "
        f"update the driver, or install an older CUDA with {OLDER_CUDA}cu126"
    )


def cpu_threads() -> int:
    """All physical cores, but no more than the scheduler and the cgroup allow this process."""
    # Physical, since two threads of one core share its arithmetic. No more than allowed, since of
    # threads that take turns on a core, all wait for the last.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Some ARM machines can't tell cores from threads (None): then all of them.
    threads = min(psutil.cpu_count(logical=False) or allowed or 1, allowed or 1)
    try:
        quota, period = open("/sys/fs/cgroup/cpu.max").read().split()  # noqa: SIM115
        if quota != "max":
            threads = min(threads, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup v2 here
    return max(1, threads)


def keep_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel. True if it listened.

    Every step frees and allocates the same large buffers. By default each is a fresh mmap whose
    pages fault one by one, which can cost as much time as the arithmetic (bench/train_step.py).
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
