"""Prediction for a store of ten times what a worker may use stays within what it may use."""

from __future__ import annotations

import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from altmin_dask import AltMinAutoencoder, AltMinClassifier

LIMIT = 400 << 20
CHUNK_ROWS, FEATURES = 2500, 784


def peak() -> tuple[int, int]:
    """The process, and the most memory it has used so far, in bytes."""
    status = Path("/proc/self/status").read_text()  # getrusage would count the process it was forked from
    return os.getpid(), 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["predict", "reconstruct"])
def test_ten_times_the_limit_of_a_worker(method, tmp_path):
    rng = np.random.default_rng(0)
    block = rng.normal(size=(CHUNK_ROWS, FEATURES)).astype(np.float32)
    chunks = -(-10 * LIMIT // block.nbytes)
    store = zarr.create_group(tmp_path / "samples.zarr")
    x = store.create_array(
        "x", shape=(chunks * CHUNK_ROWS, FEATURES), chunks=block.shape, dtype="float32", compressors=None
    )
    x[:CHUNK_ROWS] = block
    first = tmp_path / "samples.zarr" / "x" / "c" / "0" / "0"
    for chunk in range(1, chunks):  # the same bytes, which need no place on the disk
        (first.parents[1] / str(chunk)).mkdir()
        os.link(first, first.parents[1] / str(chunk) / "0")
    assert x.nbytes >= 10 * LIMIT

    estimator = (
        AltMinClassifier(20, max_sweeps=1) if method == "predict" else AltMinAutoencoder(20, max_sweeps=1)
    )
    estimator.set_params(random_state=0, scheduler="threads").fit(block, block[:, 0] > 0)
    wanted = getattr(estimator, method)(block)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=2, memory_limit=LIMIT, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        process, before = next(iter(client.run(peak).values()))
        lazy = getattr(estimator, method)(str(tmp_path / "samples.zarr"))
        if method == "predict":
            da.to_zarr(lazy, str(tmp_path / "labels.zarr"), zarr_format=3)
            found = zarr.open_array(tmp_path / "labels.zarr", mode="r")
            assert found.shape == x.shape[:1]
            np.testing.assert_array_equal(found[-CHUNK_ROWS:], wanted)
        else:
            np.testing.assert_allclose(lazy.mean(axis=0).compute(), wanted.mean(axis=0), atol=1e-3)
        same, after = next(iter(client.run(peak).values()))
        assert same == process  # the nanny had no reason to start another one
        print(f"{method}: {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB at most, of {LIMIT >> 20}")
        assert after < LIMIT
