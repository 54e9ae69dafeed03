"""Every example and every pipeline runs, or is checked as far as it can be without the machines it is for."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from command import write_pipeline
from documents import Page, commands, parse
from safetensors.numpy import load_file

import altmin_dask
from altmin_dask.config import load_pipeline
from altmin_dask.storage.model import Model

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# not imported here: it takes SIGINT for itself
needs_jobqueue = pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="needs dask-jobqueue")


def written() -> dict[Path, int]:
    """When each of the examples' files was written."""
    return {file: file.stat().st_mtime_ns for file in EXAMPLES.iterdir()}


def run_script(*words: Any, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script, which leaves nothing in the folder for temporary files, and its own folder alone."""
    before = written()
    with TemporaryDirectory() as temporary:
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:altmin_dask", *map(str, words)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": temporary, **environment},
        )
        left = [file for file in Path(temporary).rglob("*") if file.is_file()]
        assert [file for file in left if file.suffix != ".lock"] == []  # of Dask's folder, which all share
    assert written() == before
    return done


def imported(source: str) -> Iterator[str]:
    """Names of the package that a script takes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == "altmin_dask":
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Import():
                yield from (alias.name for alias in node.names if alias.name.startswith("altmin_dask"))


def sources() -> Iterator[tuple[str, str]]:
    for file in sorted(EXAMPLES.glob("*.py")):
        yield file.name, file.read_text(encoding="utf-8")
    for file in sorted(EXAMPLES.glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        lines = [line for cell in cells if cell["cell_type"] == "code" for line in [*cell["source"], "\n"]]
        yield file.name, "".join(line for line in lines if not line.startswith("%"))


@pytest.mark.parametrize(("name", "source"), [pytest.param(*pair, id=pair[0]) for pair in sources()])
def test_examples_take_public_names_only(name, source):
    assert {*imported(source)} <= {f"altmin_dask.{public}" for public in altmin_dask.__all__}


def test_every_example_is_tested():
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml", ".ipynb")} == {
        "adding_problem.py",
        "classifier_pipeline.ipynb",
        "classifier_pipeline.py",
        "digits_autoencoder.ipynb",
        "digits_autoencoder.py",
        "flights.py",
        "larger_than_memory.py",
        "resume_after_kill.py",
        "penalties_outliers.py",
        "slurm_cluster.py",
        "kubernetes_cluster.yaml",
    }


@pytest.mark.slow
def test_digits_autoencoder(tmp_path):
    done = run_script(EXAMPLES / "digits_autoencoder.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["digits_autoencoder.png"]


@pytest.mark.slow
def test_classifier_pipeline(tmp_path):
    done = run_script(EXAMPLES / "classifier_pipeline.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("held-out samples: ")[1].split()[0]) > 0.93
    assert (tmp_path / "classifier.onnx").exists()
    assert (tmp_path / "classifier_pipeline.png").exists()


@pytest.mark.slow
def test_larger_than_memory(tmp_path):
    options = ("--rows", "12000", "--memory", "1 GiB", "--workers", "1")
    done = run_script(EXAMPLES / "larger_than_memory.py", tmp_path, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("accuracy on all samples: ")[1].split()[0]) > 0.95
    assert "12000 labels" in done.stdout
    picture = "larger_than_memory.png"
    assert {path.name for path in tmp_path.iterdir()} == {"samples.zarr", "labels.zarr", picture}


@pytest.mark.slow
def test_resume_after_kill(tmp_path):
    done = run_script(EXAMPLES / "resume_after_kill.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "equal, bit by bit" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["resume_after_kill.png"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_autoencoder", "classifier_pipeline"])
def test_notebooks(name, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    stored = [outputs_of(cell) for cell in notebook.cells]
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert [outputs_of(cell) for cell in notebook.cells] == stored
    kinds = {kind for cell in stored for kind in cell}
    assert "image/png" in kinds
    assert "error" not in kinds


def outputs_of(cell: Any) -> list[str]:
    """What kinds of things a cell has shown; pictures of NumPy and time differ in their bytes."""
    kinds = []
    for output in cell.get("outputs", []):
        kinds += output["data"] if "data" in output else [output.get("name", "error")]
    return sorted(set(kinds))


@pytest.mark.slow
def test_adding_problem(tmp_path):
    done = run_script(EXAMPLES / "adding_problem.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("mean squared error ")[1].split()
    assert float(words[0].rstrip(";")) < 0.01
    assert (tmp_path / "adding_problem.png").exists()


@pytest.mark.slow
def test_penalties_outliers(tmp_path):
    done = run_script(EXAMPLES / "penalties_outliers.py", "--out", tmp_path, "--sweeps", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("L1, μ = ") == 6
    assert [path.name for path in tmp_path.iterdir()] == ["penalties_outliers.png"]


@pytest.mark.slow
def test_flights_train_from_a_raw_csv(tmp_path, monkeypatch, altmin):
    """In one command, after the example that makes the file."""
    done = run_script(EXAMPLES / "flights.py", "flights.csv", "1500", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = ("training.max_sweeps=6", "output.report=false")
    assert altmin("train", ROOT / "pipelines" / "flights.toml", "--run", "r", *words).code == 0
    found = json.loads(altmin("evaluate", "r", "flights.csv", "--json").out)
    assert found["classes"] == ["late", "on time"]
    assert found["accuracy"] > 0.85
    names = Model.load(tmp_path / "r" / "model").preparation.names
    assert {"departure hour sin", "origin=unknown", "tail infrequent", "distance is missing"} <= set(names)


@needs_jobqueue
@pytest.mark.slow
def test_slurm_job_script(tmp_path):
    options = ("--jobs", "2", "--workers", "3", "--memory", "6 GiB", "--queue", "long", "--print")
    done = run_script(EXAMPLES / "slurm_cluster.py", "p.toml", "run", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in (
        "#SBATCH -p long",
        "#SBATCH --cpus-per-task=3",
        "#SBATCH --mem=6G",
        "--nworkers 3",
        "--nthreads 1",
        "--preload altmin_dask.worker",
        "--memory-limit 2.00GiB",
    ):
        assert line in done.stdout, done.stdout


SBATCH = """#!/bin/sh
cp "$1" "$HOME/job-$$.sh"
setsid bash "$HOME/job-$$.sh" > "$HOME/job-$$.log" 2>&1 < /dev/null &
echo $! >> "$HOME/jobs"
echo "Submitted batch job $!"
"""


@needs_jobqueue
@pytest.mark.slow
def test_slurm_example_trains_where_sbatch_runs_the_script_here(samples, make_store, tmp_path):
    """SLURM itself is not here: an `sbatch` that runs the job script on this machine takes its place."""
    (tmp_path / "bin").mkdir()
    altmin = f'#!/bin/sh\nexec {sys.executable} -m altmin_dask "$@"\n'
    for name, text in {"sbatch": SBATCH, "scancel": '#!/bin/sh\nkill -- "-$1"\n', "altmin": altmin}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    words = (
        EXAMPLES / "slurm_cluster.py",
        write_pipeline(tmp_path / "p.toml", make_store(samples).path),
        tmp_path / "run",
        "--jobs",
        "2",
        "--workers",
        "1",
        "--memory",
        "1 GiB",
    )
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    try:
        done = run_script(*words, cwd=tmp_path, PATH=path, HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        first = load_file(tmp_path / "run" / "model" / "weights.safetensors")
        again = run_script(*words, cwd=tmp_path, PATH=path, HOME=str(tmp_path))  # nothing left to do
        assert again.returncode == 0, again.stderr
        second = load_file(tmp_path / "run" / "model" / "weights.safetensors")
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    finally:
        for group in (tmp_path / "jobs").read_text().split():
            with suppress(ProcessLookupError):
                os.killpg(int(group), signal.SIGKILL)


def test_kubernetes_manifest():
    claim, cluster, job = yaml.safe_load_all((EXAMPLES / "kubernetes_cluster.yaml").read_text())
    assert [part["kind"] for part in (claim, cluster, job)] == ["PersistentVolumeClaim", "DaskCluster", "Job"]
    assert cluster["apiVersion"] == "kubernetes.dask.org/v1"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    worker, train = cluster["spec"]["worker"]["spec"], job["spec"]["template"]["spec"]
    for pod in (worker, train):  # both see the same folder at the same path
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["containers"][0]["volumeMounts"] == [
            {"name": pod["volumes"][0]["name"], "mountPath": "/work"}
        ]
    scheduler = cluster["spec"]["scheduler"]
    assert len({pod["containers"][0]["image"] for pod in (worker, train, scheduler["spec"])}) == 1
    assert scheduler["service"]["selector"]["dask.org/cluster-name"] == cluster["metadata"]["name"]
    port = scheduler["service"]["ports"][0]["port"]
    address = f"--scheduler tcp://{cluster['metadata']['name']}-scheduler:{port}"
    assert address in train["containers"][0]["args"][0]
    # there are such options; a program in brackets gives one or none
    (command,) = commands(re.sub(r"\$\(.*?\)", "--resume", train["containers"][0]["args"][0]))
    assert command[:3] == ["exec", "altmin", "train"]
    for words in (command[1:], *(pod["containers"][0]["args"] for pod in (worker, scheduler["spec"]))):
        parse(words)
        with pytest.raises(Exception, match="No such option"):  # typer's own, or click's
            parse([*words, "--no-such-option"])


@needs_jobqueue
@pytest.mark.slow
def test_the_page_prints_a_job_script(tmp_path):
    (block,) = (each for each in Page(ROOT / "docs" / "cluster.md").blocks if "slurm_cluster" in each.text)
    (words,) = (each for each in commands(block.text) if "--print" in each)
    done = run_script(ROOT / words[1], *words[2:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH -p normal\n" in done.stdout
    assert "#SBATCH -t 04:00:00\n" in done.stdout


@pytest.mark.parametrize("file", sorted((ROOT / "pipelines").glob("*.toml")), ids=lambda path: path.stem)
def test_pipeline_is_valid(file):
    assert load_pipeline(file).output.title
