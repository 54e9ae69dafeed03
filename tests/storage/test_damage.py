"""Chunks that were altered or lost, as a disk or a careless program leaves them: named, never read as numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import zarr
from choices import slow_but
from hypothesis import given, settings
from hypothesis import strategies as st
from in_order import ingest
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.errors import ChunkError, DataError
from altmin_dask.storage.checksums import storage_options
from altmin_dask.storage.zarr_chunks import ChunkView

RNG = np.random.default_rng(5)
X = RNG.random((23, 6), np.float32)
Y = np.arange(23) % 5


def write(folder: Path, compress: bool) -> Path:
    """What ingest writes, compressed as if it were at a URL or not."""
    group = zarr.create_group(folder)
    for name, values in (("x", X), ("y", Y)):
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(5, *values.shape[1:]),
            **storage_options(values.dtype, compress=compress),
        )
        array[...] = values
    return folder


def read(path: Path, name: str, chunk: int) -> np.ndarray:
    store = SampleStore.open(path)
    array = getattr(store, name)
    view = ChunkView.select(f"{store.path}/{name}", array.shape, store.chunk_rows, array.dtype, (chunk,))
    return view.pieces[0].read()


@pytest.fixture(scope="module", params=slow_but([True], [False, True]), ids=["plain", "zstd"])
def store(request, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("damage") / "s.zarr", request.param)


@settings(max_examples=40)
@given(
    where=st.sampled_from(["x/c/2/0", "y/c/2"]),
    kind=st.sampled_from(["flip", "cut", "longer", "zeros", "empty", "another's"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    rows=st.integers(1, 23),
)
def test_an_altered_chunk_is_named(store, where, kind, place, bit, rows):
    file, name = store / where, where[0]
    intact = file.read_bytes()
    altered = bytearray(intact)
    match kind:
        case "flip":
            altered[int(place * len(intact))] ^= 1 << bit
        case "cut":
            del altered[int(place * len(intact)) :]
        case "longer":
            altered += intact
        case "zeros":
            altered[:] = bytes(len(intact))
        case "empty":
            altered.clear()
        case _:
            altered += b"x"
    file.write_bytes(altered)
    try:
        with pytest.raises(
            ChunkError, match=rf"chunk 2 of .*s\.zarr/{name} does not match its checksum; put"
        ):
            read(store, name, 2)
        with pytest.raises(
            ChunkError, match=rf"^chunk 2 of array '{name}' of .*s\.zarr does not match its checksum; put it"
        ):
            list(open_source(store).blocks(rows))
    finally:
        file.write_bytes(intact)
    np.testing.assert_array_equal(read(store, name, 2).ravel(), {"x": X, "y": Y}[name][10:15].ravel())


@settings(max_examples=40)
@given(where=st.sampled_from(["x/c/2/0", "y/c/2", "x/c/4/0"]), rows=st.integers(1, 23))
def test_a_lost_chunk_is_named(store, where, rows):
    file, name, chunk = store / where, where[0], int(where[4])
    intact = file.read_bytes()
    file.unlink()
    try:
        with pytest.raises(ChunkError, match=rf"chunk {chunk} of .*s\.zarr/{name} is missing; put it back"):
            read(store, name, chunk)
        with pytest.raises(ChunkError, match=rf"^chunk {chunk} of array '{name}' of .*s\.zarr is missing"):
            list(open_source(store).blocks(rows))
    finally:
        file.write_bytes(intact)


@pytest.mark.parametrize("suffix", [".zarr", ".zarr/x"])
def test_ingest_of_a_damaged_store_leaves_nothing(tmp_path, suffix):
    write(tmp_path / "s.zarr", False)
    content = bytearray((tmp_path / "s.zarr/x/c/3/0").read_bytes())
    content[7] ^= 1
    (tmp_path / "s.zarr/x/c/3/0").write_bytes(content)
    with pytest.raises(
        ChunkError, match=r"chunk 3 of (array 'x' of|the array at) .* does not match its check"
    ):
        ingest(open_source(f"{tmp_path}/s{suffix}"), tmp_path / "t.zarr", chunk_rows=23)
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc", None])
@pytest.mark.parametrize("cut", [0, 3, 10])
def test_what_other_programs_wrote(tmp_path, zarr_format, codec, cut):
    """Without a checksum a damaged chunk is noticed when it cannot be decoded."""
    import numcodecs

    codecs = {
        None: (None, None),
        "gzip": (GzipCodec(), numcodecs.GZip()),
        "zstd": (ZstdCodec(), numcodecs.Zstd()),
        "blosc": (BloscCodec(), numcodecs.Blosc()),
    }
    group = zarr.create_group(tmp_path / "s.zarr", zarr_format=zarr_format)
    compressor = codecs[codec][3 - zarr_format]
    group.create_array("x", data=X, chunks=(5, 6), compressors=compressor)
    file = tmp_path / "s.zarr" / ("x/c/2/0" if zarr_format == 3 else "x/2.0")
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(
        ChunkError, match=r"^chunk 2 of array 'x' of .* (cannot be decompressed|has the wrong length); put it"
    ):
        list(open_source(tmp_path / "s.zarr").blocks(23))


@pytest.mark.parametrize("dtype", ["u1", "bool", "i4", "f4", "u8"])
def test_zeros_of_other_programs_are_not_lost_chunks(tmp_path, dtype):
    """Their fill value, and what their chunks begin with, may be zero."""
    zarr.create_group(tmp_path / "s.zarr").create_array("x", data=np.zeros((8, 2), dtype), chunks=(4, 2))
    assert not read(tmp_path / "s.zarr", "x", 1).any()
    assert len(list(open_source(tmp_path / "s.zarr").blocks(3))) == 3


def test_a_sample_that_is_nan_is_not_a_lost_chunk(tmp_path):
    """Of another program, whose fill value is ours."""
    values = X.copy()
    values[5] = math.nan
    group = zarr.create_group(tmp_path / "s.zarr")
    group.create_array("x", data=values, chunks=(5, 6), fill_value=math.nan)
    np.testing.assert_array_equal(read(tmp_path / "s.zarr", "x", 1), values[5:10])
    with pytest.raises(DataError, match=r"row 5 of .* has NaN or infinity in x"):
        ingest(open_source(tmp_path / "s.zarr"), tmp_path / "t.zarr", chunk_rows=23)


@pytest.mark.parametrize(
    ("label", "dtype"), [(-(2**63), "i8"), (2**63, "u8"), (2**64 - 1, "u8")], ids=["lost", "half", "full"]
)
def test_labels_that_would_be_taken_for_something_else(tmp_path, label, dtype):
    y = np.ones(23, dtype)
    y[17] = label
    with pytest.raises(
        DataError, match=f"row 17 of bad has the label {label}, which cannot be stored; number"
    ):
        ingest(array_source(X, y, name="bad"), tmp_path / "s.zarr", chunk_rows=5)
    assert list(tmp_path.iterdir()) == []
    y[17] = min(label + 1, 2**63 - 1)
    assert ingest(array_source(X, y), tmp_path / "s.zarr").y[17] == min(label + 1, 2**63 - 1)
