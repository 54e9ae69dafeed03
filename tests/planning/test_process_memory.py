"""The plan of the process that trains is beside what the system counts of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import Altmin

PIPELINES = Path(__file__).parents[2] / "pipelines"
MIB = 1 << 20
PEAK = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "altmin_dask", *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""A program of its own: what the system counts begins with the memory of the process that starts another."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "local"])
def test_the_whole_process_stays_within_its_plan(kind, altmin: Altmin, tmp_path):
    """As the system counts it: with all that is imported, the report's drawing and a local cluster's scheduler."""
    digits = PIPELINES / "digits_autoencoder.toml", "--set", f"cluster.kind={kind}", "training.max_sweeps=30"
    planned = json.loads(altmin("plan", *digits, "--json").out)["client_memory"]
    command = [sys.executable, "-c", PEAK, "train", *digits, "--run", tmp_path / "run"]
    code, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert code == 0
    assert 0.5 * planned < peak * 1024 <= planned, (peak / 1024, planned / MIB)
