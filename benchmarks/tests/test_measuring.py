"""A measurement is refused beside others and of source that is in no commit."""

from __future__ import annotations

import subprocess
import sys

import measuring
import pytest


@pytest.fixture
def repository(tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path


def test_source_that_is_in_no_commit_is_refused(repository):
    commit = measuring.refuse_dirty(False, repository)
    assert len(commit) == 10
    results = repository / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "new.md").write_text("results are no source")
    assert measuring.refuse_dirty(False, repository) == commit
    for file in (repository / "code.py", repository / "untracked.py"):
        file.write_text("2")
        with pytest.raises(SystemExit, match=f"differ from commit {commit}.*--allow-dirty"):
            measuring.refuse_dirty(False, repository)
        assert measuring.refuse_dirty(True, repository) == f"{commit}-dirty"
        if file.name == "code.py":
            file.write_text("1")


def test_nothing_is_measured_beside_others(capsys):
    busy = iter([2.0, 1.4, 0.9])
    left = measuring.wait_for_quiet(0.05, 0.0, 1, cores=2, measure=lambda seconds: next(busy))
    assert left == 0.9
    assert "1.4" not in capsys.readouterr().err  # said once
    with pytest.raises(
        measuring.BusyError, match=r"keep 0\.5 of 2 cores busy, and 2 are wanted.*measure later"
    ):
        measuring.wait_for_quiet(0.02, 0.0, 2, cores=2, measure=lambda seconds: 0.5)


def test_own_children_are_no_others():
    everything, own = measuring.busy_seconds()
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    after, own_after = measuring.busy_seconds()
    assert own_after - own >= 0.27  # the clock ticks every 0.01 s
    assert after - everything >= own_after - own - 0.1


def test_a_machine_is_described():
    said = measuring.machine()
    assert said["cpu"]
    assert said["cores"] >= 1
    assert any("openblas" in line or "mkl" in line for line in said["blas"])
    assert said["versions"]["numpy"]
    assert isinstance(said["dirty"], bool)


def test_kernels_that_the_environment_chose_are_named(monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert not any("CORETYPE" in line for line in measuring.machine()["blas"])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE=Haswell" in measuring.machine()["blas"]


def test_a_median_has_its_range():
    assert measuring.spread([3.0, 1.0, 2.0]) == "2 [1–3]"
    assert measuring.spread([2.0], "{:.1f} s".format) == "2.0 s"
