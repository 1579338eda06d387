"""A handful of the kills of tests/kill_index.py, which does thousands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("options", [[], ["--keys"]])
def test_kill_minus_9(options):
    script = Path(__file__).parent / "kill_index.py"
    command = [sys.executable, str(script), "--kills", "40", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("every state was whole\n")
