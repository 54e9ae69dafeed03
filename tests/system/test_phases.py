"""A kill in every phase of a step, on purpose: the run goes on to the same bits."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import X, foreign, write_pipeline
from killers import PHASES
from processes import HERE, finish, outcome, running_cluster

KERNEL_PHASES = ("read", "newton", "write", "written")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of windows over eight chunks, in groups of two."""
    home = tmp_path_factory.mktemp("phases")
    foreign(home / "s.zarr", np.tile(X, (2, 1)))
    return write_pipeline(
        home / "p.toml",
        home / "s.zarr",
        training={
            "schedule": "windows",
            "first_window": 2,
            "window_passes": 2,
            "group_chunks": 2,
            "max_sweeps": 3,
        },
    )


@pytest.fixture(scope="module")
def reference(pipeline: Path) -> Any:
    return outcome(finish(pipeline, pipeline.parent / "reference"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_the_client_is_killed(pipeline, reference, tmp_path, phase):
    """On threads, where one process does it all."""
    run, flag = tmp_path / phase, tmp_path / "killed"
    kill = {"ALTMIN_KILL": f"{phase}:{2 if phase in ('model', 'record') else 5}:{flag}"}
    finish(pipeline, run, code=-signal.SIGKILL, script=HERE / "killers.py", **kill)
    assert flag.exists()
    finish(pipeline, run, "--resume")
    assert outcome(run) == reference
    assert not list(run.rglob("*.partial"))
    assert len(list(run.rglob("c.*"))) == 8  # a chunk of z each


@pytest.mark.slow
@pytest.mark.parametrize("phase", KERNEL_PHASES)
def test_a_worker_is_killed(pipeline, reference, tmp_path, phase):
    """On a cluster: the other worker, or the nanny's next one, does the task again, and the client notices nothing."""
    run, flag = tmp_path / phase, tmp_path / "killed"
    with running_cluster(tmp_path, ALTMIN_KILL=f"{phase}:5:{flag}") as cluster:
        finish(pipeline, run, "--scheduler", cluster.address)
    assert flag.exists()
    assert outcome(run) == reference
