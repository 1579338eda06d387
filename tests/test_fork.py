"""Forked children: every public function works in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
HERE = Path(__file__).parent


def test_every_public_function_works_in_a_child_of_a_parent_that_used_openmp() -> None:
    command = [sys.executable, "fork_all.py"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
