"""Killed at random and at writes, continued, compared bit for bit: a short bench/crash.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_a_killed_run_is_the_run_left_alone() -> None:
    command = [sys.executable, "bench/crash.py", "--kills=8", "--writes=12"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    found = re.findall(r"(\d+) kills .* (\d+) mismatches, (\d+) lost", said)
    assert [counts[1:] for counts in found] == [("0", "0")] * 4, said
    assert all(int(counts[0]) >= least for counts, least in zip(found, (6, 12, 2, 2), strict=True))
    assert said.count("left out: noticed") == 3
