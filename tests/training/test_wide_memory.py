"""What wide samples take, measured in processes of their own by the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "wide.py"


@pytest.mark.slow
@pytest.mark.parametrize(("case", "times"), [("1000 x 50000", 4.0), ("100 x 5000", 60.0)])
def test_memory_is_that_of_the_samples_a_few_times(case, times):
    """The samples themselves included; beside 2 MiB of them, 120 MiB are what any run takes."""
    command = [sys.executable, "-W", "ignore", str(BENCHMARK), "--here", "--case", case, "--of", "altmin"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] < times * found["data"], found
    assert found["accuracy"] > 0.99
