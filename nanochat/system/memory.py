"""How much memory to plan with: what is built in, or less if a cgroup says so.

dev/lib.sh finds the same for the drivers, before there is a Python; a test holds both equal.
"""

from __future__ import annotations

import re
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil

# The group of cgroup v2 (`0::/a/b`) or of v1's memory controller (`4:memory:/a/b`).
OWN_GROUP = re.compile(r"^(?:0::|\d*:[^:]*memory[^:]*:)(.*)$", re.MULTILINE)


class Card(NamedTuple):
    """A CUDA card that torch can use: its bytes of memory, and the bytes per activation."""

    memory_bytes: int
    float_bytes: int


@cache
def card() -> Card | None:
    """The card that training will use, or None."""
    # Only torch knows which cards it can use, and it is slow to load: ask it only if there is a
    # driver at all.
    if shutil.which("nvidia-smi") is None:
        return None
    import torch

    from nanochat.system.device import DTYPES, best_device, default_dtype

    found, _ = best_device()
    if found != "cuda":
        return None
    dtype = DTYPES[default_dtype("cuda", torch.cuda.get_device_capability())]
    return Card(torch.cuda.get_device_properties(0).total_memory, dtype.itemsize)


def machine_memory_gb() -> int:
    """GB of this machine, or of the container that this process runs in."""
    if sys.platform == "linux":
        built_in = psutil.virtual_memory().total
        return linux_memory_gb(built_in, Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(1, psutil.virtual_memory().total // 2**30)


def linux_memory_gb(built_in: int, cgroups: Path, own: Path) -> int:
    """GB, from the bytes that the kernel has, the cgroups' folder and /proc/self/cgroup.

    A container may use less than the machine has. Planned for the machine, a run in it would be
    killed without a word as soon as it touches the difference.
    """
    # The kernel keeps some of what is built in for itself: round up to a multiple of 4 GB, so that
    # a machine sold with 16 GB has 16 and not 15.
    limits = [4 * -(-built_in // 2**32)]
    found = OWN_GROUP.search(_text(own))
    group = found[1] if found else ""
    while True:  # a limit holds for everything below it: look at our own group and all above
        for name in (f"{group}/memory.max", f"memory{group}/memory.limit_in_bytes"):
            limit = _text(cgroups / name.lstrip("/")).strip()
            # No limit is the word "max" in v2, and nearly 2^63 in v1.
            if re.fullmatch(r"[0-9]{1,18}", limit):
                limits.append(int(limit) // 2**30)
        if group in ("", "/"):
            return max(1, min(limits))
        group = group.rpartition("/")[0]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
