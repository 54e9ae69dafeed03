"""Zarr that other programs wrote: zip stores are read, objects and codecs that unpickle are refused in a sentence."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import zarr
from command import refused, write_pipeline

from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError

PICKLE = {"id": "pickle", "protocol": 5}


class Bomb:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return open, ("unpickled", "w")


def store(path, dtype, filters=None, compressor=None):
    """A group of format 2, as other programs write it, whose only chunk is a pickle."""
    (path / "x").mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    about = {
        "zarr_format": 2,
        "shape": [3, 2],
        "chunks": [3, 2],
        "dtype": dtype,
        "fill_value": None,
        "order": "C",
        "filters": filters,
        "compressor": compressor,
    }
    (path / "x" / ".zarray").write_text(json.dumps(about))
    (path / "x" / "0.0").write_bytes(pickle.dumps(Bomb()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "how",
    [
        {"dtype": "|O", "filters": [PICKLE]},
        {"dtype": "|O"},
        {"dtype": "|O", "filters": [{"id": "json2", "encoding": "utf-8"}]},
        {"dtype": "<f8", "filters": [PICKLE]},
        {"dtype": "<f8", "compressor": PICKLE},
        {"dtype": "<f8", "compressor": {"id": "of nobody"}},
    ],
)
def test_what_would_be_unpickled_is_never_loaded(how, altmin, tmp_path):
    store(tmp_path / "s.zarr", **how)
    with pytest.raises(DataError, match=r"the array 'x' of .*s\.zarr holds objects, or is packed"):
        open_source(tmp_path / "s.zarr")
    with pytest.raises(DataError, match=r"the array 'x' of .*s\.zarr holds objects, or is packed"):
        SampleStore.open(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "x").rename(tmp_path / "s.zarr" / "other")
    with pytest.raises(DataError, match=r"has no array called x \(it has no arrays\)"):
        SampleStore.open(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "other").rename(tmp_path / "s.zarr" / "x")
    refused(altmin("ingest", "--no-shuffle", "s.zarr", "t.zarr"), "is never loaded")
    refused(altmin("train", write_pipeline(tmp_path / "p.toml", "s.zarr")), "is never loaded")
    assert not (tmp_path / "unpickled").exists()
    assert not (tmp_path / "t.zarr").exists()


def test_zip_stores_are_read(altmin, tmp_path):
    packed = zarr.storage.ZipStore(tmp_path / "s.zip", mode="w")
    group = zarr.create_group(packed)
    group.create_array("x", data=np.arange(6.0).reshape(3, 2), chunks=(2, 2))
    group.create_array("y", data=np.arange(3))
    packed.close()
    x, y = next(open_source(tmp_path / "s.zip").blocks(3))
    assert x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert y.tolist() == [0, 1, 2]
    assert altmin("ingest", "--no-shuffle", "s.zip", "t.zarr").code == 0
