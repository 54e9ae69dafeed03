"""Sample stores on S3, against a real server in this process; endpoint and credentials come from the environment."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from command import LABELS, Outcome, X, foreign, refused, start, write_pipeline
from in_order import ingest
from object_store import CREDENTIALS, flip, s3

from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import ChunkError, DataError, ExistsError, MissingError
from altmin_dask.storage.model import Model
from altmin_dask.storage.zarr_chunks import ChunkView

pytest.importorskip("s3fs")


def ended(process: subprocess.Popen[str], timeout: float = 60) -> Outcome:
    out, err = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, err)


def chunks_of(store: SampleStore, name: str = "x") -> ChunkView:
    array = getattr(store, name)
    ids = tuple(range(store.n_chunks))
    return ChunkView.select(f"{store.path}/{name}", array.shape, store.chunk_rows, array.dtype, ids)


def alone(script: str, **environment: str) -> Outcome:
    """Run Python as a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        timeout=100,
    )
    return Outcome(process.returncode, process.stdout, process.stderr)


def test_samples_go_there_and_back(bucket, tmp_path):
    url = f"{bucket}/deep/samples.zarr"
    store = ingest(array_source(X, LABELS), url, chunk_rows=16)
    assert (store.path, store.rows, store.n_chunks, store.x.dtype) == (url, 60, 4, np.float32)
    assert [codec.to_dict()["name"] for codec in store.x.compressors] == ["zstd", "crc32c"]
    assert math.isnan(store.x.fill_value)
    read = np.concatenate([chunks_of(SampleStore.open(url)).pieces[chunk].read() for chunk in range(4)])
    np.testing.assert_array_equal(read, X.astype(np.float32))
    np.testing.assert_array_equal(chunks_of(store, "y").pieces[3].read()[:, 0], LABELS[48:])

    local = ingest(open_source(url), tmp_path / "back.zarr", chunk_rows=7)
    np.testing.assert_array_equal(local.x[:], X.astype(np.float32))
    np.testing.assert_array_equal(local.y[:], LABELS)


def test_a_store_is_replaced_only_on_request(bucket):
    url = f"{bucket}/samples.zarr"
    ingest(array_source(X, LABELS), url, chunk_rows=16)
    with pytest.raises(ExistsError, match=r"samples\.zarr exists already; give another destination"):
        ingest(array_source(X), url)
    assert ingest(array_source(X[:5]), url, overwrite=True).rows == 5
    # nothing of the old one is left
    assert {name.split("/", 2)[2] for name in s3().find(url)} == {"zarr.json", "x/zarr.json", "x/c/0/0"}


@pytest.mark.slow
def test_predictions_are_written_there(bucket, tmp_path, altmin):
    """They were refused, and the samples of a whole bucket had to find room on one machine."""
    url, dest = f"{bucket}/samples.zarr", f"{bucket}/deep/p.zarr"
    store = ingest(array_source(X, LABELS), url, chunk_rows=16)
    write_pipeline(tmp_path / "p.toml", url, "classifier", network={"dtype": "float32"})
    run = tmp_path / "run"
    assert altmin("train", tmp_path / "p.toml", "--run", run).code == 0
    assert altmin("predict", run, url, tmp_path / "here.zarr").code == 0
    done = altmin("predict", run, url, dest)
    assert (done.code, f"{dest}: predictions for 60 samples" in done.out) == (0, True), done.err
    here, there = zarr.open_group(tmp_path / "here.zarr", mode="r"), zarr.open_group(dest, mode="r")
    for name in ("prediction", "label"):
        np.testing.assert_array_equal(there[name][:], here[name][:])
    assert there.attrs["altmin"]["complete"] is True
    refused(altmin("predict", run, url, dest), "exists already; give another destination, or --overwrite")
    refused(altmin("predict", run, url, url, "--overwrite"), "holds the samples themselves")
    refused(altmin("predict", run, url, f"{bucket}/p.csv"), "written as a zarr store only")
    few = ingest(array_source(X[:5]), f"{bucket}/few.zarr", chunk_rows=16)
    assert altmin("predict", run, few.path, dest, "--overwrite").code == 0
    assert zarr.open_group(dest, mode="r")["label"].shape == (5,)  # and nothing of the old ones is left
    assert len(s3().find(dest)) == 5
    foreign_url = f"{bucket}/theirs.zarr"
    zarr.create_group(foreign_url)
    refused(altmin("predict", run, url, foreign_url, "--overwrite"), "never replaced")
    assert store.rows == 60


@pytest.mark.slow
def test_a_writer_that_was_killed_leaves_a_store_that_is_refused(bucket):
    url = f"{bucket}/samples.zarr"
    alone(
        "import os, signal; from altmin_dask.data.open import open_source; "
        "from altmin_dask.data.ingest import ingest; "
        f"ingest(open_source('digits'), {url!r}, shuffle=False, "
        "progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))",
    )
    assert s3().exists(f"{url}/x/c/0/0/0")
    with pytest.raises(DataError, match="was not written to the end; `altmin ingest` it again with --over"):
        SampleStore.open(url)
    assert ingest(array_source(X), url, overwrite=True).rows == 60


@pytest.mark.slow
def test_a_flipped_bit_is_detected_and_named(bucket, altmin):
    url = f"{bucket}/samples.zarr"
    store = ingest(array_source(X, LABELS), url, chunk_rows=16, dtype="float64")
    flip(f"{url}/x/c/2/0")
    chunks_of(store).pieces[1].read()
    with pytest.raises(ChunkError, match=rf"chunk 2 of {url}/x does not match its checksum; put it back"):
        chunks_of(store).pieces[2].read()
    refused(altmin("ingest", url, "local.zarr", "--chunk-rows", 60), "chunk 2 of array 'x' of s3://")
    refused(altmin("ingest", url, "local.zarr", "--chunk-rows", 3), "does not match its checksum")
    file = write_pipeline(Path("p.toml"), url)
    refused(altmin("train", file, "--run", "run"), f"chunk 2 of {url}/x does not match its checksum")


@pytest.mark.slow
def test_a_lost_chunk_is_not_read_as_numbers(bucket, altmin):
    url = f"{bucket}/samples.zarr"
    store = ingest(array_source(X, LABELS), url, chunk_rows=16)
    s3().rm_file(f"{url}/y/c/3")
    chunks_of(store, "y").pieces[0].read()
    with pytest.raises(ChunkError, match=rf"chunk 3 of {url}/y is missing"):
        chunks_of(store, "y").pieces[3].read()
    for rows in (60, 16, 7):
        refused(altmin("ingest", url, "local.zarr", "--chunk-rows", rows), "chunk 3 of array 'y' of s3://")


@pytest.mark.slow
def test_training_and_evaluation_give_what_they_give_on_a_local_store(bucket, altmin):
    samples = foreign(Path("samples.zarr"), X)
    url = f"{bucket}/samples.zarr"
    for dest in (url, "local.zarr"):
        ended_well = altmin("ingest", samples, dest, "--chunk-rows", 16, "--dtype", "float64")
        assert ended_well.code == 0, ended_well
    models, losses = [], []
    for name, data in (("remote", url), ("local", "local.zarr")):
        outcome = altmin("train", write_pipeline(Path(f"{name}.toml"), data), "--run", name)
        assert outcome.code == 0, outcome
        models.append(Model.load(f"{name}/model"))
        outcome = altmin("evaluate", name, data, "--json")
        assert outcome.code == 0, outcome
        losses.append(outcome.out.split('"loss"')[1])
    assert losses[0] == losses[1]
    for remote, local in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_array_equal(remote, local)


@pytest.mark.slow
def test_worker_processes_find_the_endpoint_too(bucket, tmp_path):
    url = f"{bucket}/samples.zarr"
    ingest(array_source(X), url, chunk_rows=16, dtype="float64")
    cluster = {"kind": "local", "workers": 1, "dashboard": ":0"}
    file = write_pipeline(tmp_path / "p.toml", url, cluster=cluster, training={"max_sweeps": 1})
    outcome = ended(start("train", file, "--run", tmp_path / "run", cwd=tmp_path))
    assert outcome.code == 0, outcome


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "FSSPEC_S3_ENDPOINT_URL"])
def test_the_command_line_as_a_process_of_its_own(bucket, endpoint, tmp_path, variable):
    url = f"{bucket}/digits.zarr"
    environment = {"AWS_ENDPOINT_URL": "", variable: endpoint}
    outcome = ended(start("ingest", "digits:test", url, "--chunk-rows", 100, cwd=tmp_path, env=environment))
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == f"{url}: 360 samples of 8×8 float32, targets int64, 4 chunks of 100 rows\n"
    assert SampleStore.open(url).summary.x_max == 16


# --- what goes wrong


def test_a_bucket_that_is_not_there(endpoint, altmin):
    refused(altmin("ingest", "digits", "s3://no-such-bucket/a.zarr"), "The specified bucket does not exist")
    refused(
        altmin("ingest", "s3://no-such-bucket/a.zarr", "a.zarr"), "there is no zarr store at s3://no-such"
    )
    with pytest.raises(MissingError, match="there is no zarr store at s3://no-such-bucket/a"):
        SampleStore.open("s3://no-such-bucket/a.zarr")


OPEN = "SampleStore.open('s3://bucket/a.zarr')"
INGEST = "ingest(open_source('digits'), 's3://bucket/a.zarr')"
NOBODY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
NO_ANSWER = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "environment", "sentence"),
    [
        (OPEN, NOBODY, "Unable to locate credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"),
        pytest.param(
            INGEST,
            {**NO_ANSWER, "AWS_MAX_ATTEMPTS": "1"},
            "; check AWS_ENDPOINT_URL and the network",
            marks=pytest.mark.slow,
        ),
        pytest.param(OPEN, NO_ANSWER, "; check AWS_ENDPOINT_URL", marks=pytest.mark.slow),
        (OPEN, {"without": "s3fs"}, "`pip install 'altmin-dask[s3]'`"),
    ],
    ids=["no credentials", "no answer", "no answer after all attempts", "no s3fs"],
)
def test_a_service_that_cannot_be_used(call, environment, sentence):
    began = time.monotonic()
    code, out, err = alone(
        "import os, sys; from altmin_dask.errors import AltMinError; "
        "from altmin_dask.data.open import open_source; "
        "from altmin_dask.data.ingest import ingest; from altmin_dask.data.sample_store import SampleStore\n"
        "if 'without' in os.environ: sys.modules[os.environ['without']] = None\n"
        f"try: {call}\nexcept AltMinError as error: print(error); sys.exit(error.exit_code)",
        **{**CREDENTIALS, **environment},
    )
    assert (code, err) == (2, "")
    assert out.startswith("s3://bucket/a.zarr cannot be opened: ")
    assert sentence in out
    assert time.monotonic() - began < 60


def test_a_store_that_was_made_anew_is_another_one(bucket):
    place = f"{bucket}/s.zarr"
    first = ingest(array_source(X), place, chunk_rows=16)
    assert len(chunks_of(first).pieces[0].read()) == 16
    second = ingest(array_source(X), place, chunk_rows=20, overwrite=True)
    assert len(chunks_of(second).pieces[0].read()) == 20
