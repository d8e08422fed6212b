"""A run that freezes, is taken over by another host and goes on: it must disturb nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from frozen import ALONE, MOMENTS

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_owner_that_wakes_disturbs_nothing():
    """Every moment in one process: they share the run that nobody disturbs."""
    try:
        allowed = subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no process namespaces here (unshare)")
    command = [sys.executable, "tests/frozen.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("nothing disturbed") == len(MOMENTS), done.stdout
