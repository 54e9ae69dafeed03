"""Zarr that other programs wrote: zip stores are read, objects and codecs that unpickle are refused in a sentence."""

from __future__ import annotations

import base64
import json
import pickle
import re
import struct

import numpy as np
import pytest
import zarr
from command import LABELS, X, foreign, refused, write_pipeline

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


def written_by_xarray(path, zarr_format, values, fill=None, **attributes):
    """x as xarray lays it out: of format 2 the fill value says what is missing, of format 3 an attribute."""
    group = zarr.create_group(path, zarr_format=zarr_format)
    if zarr_format == 2:
        options = {"fill_value": fill, "attributes": {"_ARRAY_DIMENSIONS": ["row", "column"], **attributes}}
    else:
        packed = isinstance(fill, float)
        said = base64.standard_b64encode(struct.pack("<d", fill)).decode() if packed else fill
        options = {"dimension_names": ["row", "column"], "attributes": {"_FillValue": said, **attributes}}
    array = group.create_array("x", shape=values.shape, chunks=(2, 2), dtype=values.dtype, **options)
    array[:] = values
    group.create_array("y", data=np.arange(len(values)), chunks=(2,))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("fill", [-9999, -9999.0, 1e20])
@pytest.mark.parametrize("place", [(0, 0), (4, 1)])
def test_numbers_that_stand_for_missing_values_are_refused(place, fill, zarr_format, tmp_path):
    values = np.arange(10).reshape(5, 2).astype(np.int16 if isinstance(fill, int) else np.float32)
    written_by_xarray(tmp_path / "whole.zarr", zarr_format, values, fill)
    values[place] = fill
    written_by_xarray(tmp_path / "s.zarr", zarr_format, values, fill)
    said = f"missing values, for which {fill:g} stands"
    with pytest.raises(DataError, match=re.escape(f"has {said}, in row {place[0]} and maybe others")):
        list(open_source(tmp_path / "s.zarr").blocks(3))
    # tasks read a store as it is, and look for no such numbers
    with pytest.raises(DataError, match=re.escape(f"may have {said}; `altmin ingest` it into a new store")):
        SampleStore.open(tmp_path / "whole.zarr")
    assert len(next(open_source(tmp_path / "whole.zarr").blocks(5))[0]) == 5


@pytest.mark.parametrize(
    ("zarr_format", "fill", "attributes"),
    [
        (2, float("nan"), {}),
        (3, float("nan"), {}),
        (2, 0.0, {}),
        (3, 1e300, {}),
        (2, None, {"missing_value": "none"}),
    ],
)
def test_other_fill_values_are_no_numbers_of_an_array(zarr_format, fill, attributes, tmp_path):
    """NaN is what xarray writes of itself, and zarr 0; others are refused as NaN, or infinite, where they are there."""
    written_by_xarray(tmp_path / "s.zarr", zarr_format, np.zeros((5, 2), np.float32), fill, **attributes)
    assert len(next(open_source(tmp_path / "s.zarr").blocks(5))[0]) == 5
    assert SampleStore.open(tmp_path / "s.zarr").rows == 5


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "packing", [{"scale_factor": 0.1, "add_offset": 20.0}, {"add_offset": 1}, {"scale_factor": 2}]
)
def test_packed_numbers_are_refused(packing, zarr_format, tmp_path):
    attributes = {"scale_factor": 1.0, "add_offset": 0.0}
    for name, how in (("s.zarr", attributes | packing), ("plain.zarr", attributes)):
        written_by_xarray(tmp_path / name, zarr_format, np.ones((5, 2), np.int16), 0, **how)
    for read in (open_source, SampleStore.open):
        with pytest.raises(
            DataError, match=r"is packed .*, and other numbers are meant than are there; open it with"
        ):
            read(tmp_path / "s.zarr")
    values = np.ones((5, 2), np.int16)
    np.testing.assert_array_equal(next(open_source(tmp_path / "plain.zarr").blocks(5))[0], values)


@pytest.mark.parametrize("validation", [None, 0.2])
def test_arrays_that_a_run_does_not_read_are_told_of(validation, altmin, tmp_path):
    group = zarr.open_group(foreign(tmp_path / "s.zarr", X, LABELS), mode="r+")
    group.create_array("sample_weights", data=np.ones(60), chunks=(16,))
    data = {} if validation is None else {"validation": validation}
    write_pipeline(tmp_path / "p.toml", "s.zarr", "classifier", data=data)
    said = altmin("train", "p.toml", "--run", "run").err
    assert re.search(r"array 'sample_weights' of .*s\.zarr is not read; did you mean sample_weight\?", said)
