"""z, and the weights of each step, in an object store: for workers that share nothing else."""

from __future__ import annotations

import pytest
from in_order import ingest
from object_store import flip, s3
from training_runs import train

from altmin_dask.data.source import array_source
from altmin_dask.errors import RepairWarning

GROUPS = {"group_chunks": 2, "max_sweeps": 3.0}


@pytest.fixture
def stores(samples, bucket, tmp_path):
    """The same samples here and there."""
    return [
        ingest(array_source(samples), place, chunk_rows=32, dtype="float64").path
        for place in (tmp_path / "s.zarr", f"{bucket}/s.zarr")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threads", "local"])
def test_z_in_a_bucket_changes_no_bit(pipeline, stores, bucket, tmp_path, kind):
    here, _, _ = train(pipeline(stores[0], training=GROUPS), tmp_path / "here")
    cluster = {"kind": kind, "workers": 2, "dashboard": ":0"}
    there = pipeline(stores[1], training=GROUPS, cluster=cluster, output={"z": f"{bucket}/scratch"})
    run, _, _ = train(there, tmp_path / "there")
    assert run.weights.read_bytes() == here.weights.read_bytes()
    assert not (run.path / "z").exists()
    assert run.latent.startswith(f"{bucket}/scratch/")
    found = [name.removeprefix(run.latent.removeprefix("s3://")) for name in s3().find(run.latent)]
    # one generation of z in seven chunks; weights were there for the tasks only
    assert sorted(found) == [
        "/000003.zarr/" + name for name in (*(f"c.{i}.0" for i in range(7)), "zarr.json")
    ]


@pytest.mark.slow
def test_z_in_a_bucket_is_repaired_and_swept(pipeline, stores, bucket, tmp_path):
    settings = {"output": {"z": f"{bucket}/scratch"}, "training": GROUPS}
    run, _, _ = train(pipeline(stores[1], **settings), tmp_path / "run")
    flip(f"{run.latent}/000003.zarr/c.4.0")
    s3().pipe_file(f"{run.latent}/000004.zarr/c.0.0", b"of a step that was killed")
    settings["training"] = {**GROUPS, "max_sweeps": 4.0}
    with pytest.warns(RepairWarning, match=r"chunk 4 of z in s3://.* checksum"):
        run, _, records = train(pipeline(stores[1], **settings), tmp_path / "run", resume=True)
    assert {name.split("/")[-2] for name in s3().find(run.latent)} == {"000004.zarr"}
    assert records[-1].sweep == 4.0
