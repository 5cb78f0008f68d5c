"""Devices that are not here: what is chosen, refused or said, from what torch would answer."""

from __future__ import annotations

import os

import psutil
import pytest
import torch

from nanochat.system import device
from nanochat.system.device import best_device, cpu_threads, open_device
from nanochat.system.errors import UserError


@pytest.fixture
def a_card(monkeypatch: pytest.MonkeyPatch):
    """A card that torch sees, on which the first kernel fails with this error."""

    def fails(error: str) -> None:
        def zeros(*shape: int, device: str) -> torch.Tensor:
            raise RuntimeError(error)

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GTX 1080")
        monkeypatch.setattr(torch, "zeros", zeros)

    return fails


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


def test_a_card_without_kernels_is_named_with_the_remedy(
    a_card, capsys: pytest.CaptureFixture
) -> None:
    a_card(NO_KERNEL)
    assert open_device().type == "cpu"
    said = capsys.readouterr().out
    assert "Autodetected device type: cpu\n" in said
    assert "no kernels for the GTX 1080 (compute capability 6.1)" in said
    assert "cu126" in said
    with pytest.raises(UserError, match=r"--device_type=cuda can't be used: .*GTX 1080"):
        open_device("cuda")


def test_a_card_that_fails_otherwise_is_named_with_torchs_reason(a_card) -> None:
    a_card("CUDA error: out of memory\nmore about it")
    kind, why = best_device()
    assert kind == "cpu"
    assert "out of memory" in (why or "")
    assert "more about it" not in (why or "")


def test_a_mac_that_is_too_old_for_its_gpu_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    assert open_device().type == "cpu"
    assert "macOS 14" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cuda", "remedy"), [(None, "is a CPU build"), ("13.2", "update the driver")]
)
def test_a_driver_that_torch_does_not_use_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, remedy: str
) -> None:
    monkeypatch.setattr(device.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert remedy in (best_device()[1] or "")


def test_a_cpu_is_taken_without_a_word_about_cards_where_it_was_asked_for(
    a_card, capsys: pytest.CaptureFixture
) -> None:
    a_card(NO_KERNEL)
    assert open_device("cpu").type == "cpu"
    assert capsys.readouterr().out == ""


def test_all_threads_are_used_where_cores_can_not_be_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr("builtins.open", lambda *args: (_ for _ in ()).throw(OSError()))
    assert cpu_threads() == 6


@pytest.mark.parametrize(
    ("release", "capability", "dtype", "fractions"),
    [
        ("6.1.0-debian", (9, 0), torch.bfloat16, []),
        ("6.1.0-debian", (7, 5), torch.float32, []),
        ("5.15.153.1-microsoft-standard-WSL2", (8, 6), torch.bfloat16, [0.9]),
    ],
)
def test_a_card_that_works(
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    capability: tuple[int, int],
    dtype: torch.dtype,
    fractions: list[float],
) -> None:
    """Under WSL torch must say itself that memory is full: the driver would only become slow."""
    found: list[float] = []
    monkeypatch.setattr(device, "best_device", lambda: ("cuda", None))
    monkeypatch.setattr(device.platform, "release", lambda: release)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    card = open_device()
    assert (card.type, card.dtype, card.compile, found) == ("cuda", dtype, True, fractions)
