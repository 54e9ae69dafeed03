"""What every kind of data that can be named keeps to, whichever file it is in: a row here for each entry of FORMATS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numcodecs
import numpy as np
import pandas as pd
import pytest
import zarr
from in_order import ingest
from PIL import Image
from sample_files import write_idx
from sklearn.datasets import load_digits

from altmin_dask.data.open import FORMATS, open_source
from altmin_dask.data.source import Source
from altmin_dask.errors import AltMinError, DataError

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")

ROWS = 23
PIXELS = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 5), np.uint8)
LABELS = np.sort(np.arange(ROWS) % 3)  # images come class by class
TABLE = PIXELS.reshape(ROWS, 30)[:, :3] / 4.0


@dataclass(frozen=True)
class Case:
    """A file of the same samples, and what is read of it.

    `write(folder)` gives what to name it by and the files that hold values; x and y are what it has to give.
    """

    known_as: str
    write: Callable[[Path], tuple[str, list[Path]]]
    x: np.ndarray
    y: np.ndarray | None
    options: dict[str, str] = field(default_factory=dict)


def _npz(save: Callable[..., None]) -> Callable[[Path], tuple[str, list[Path]]]:
    def write(folder: Path) -> tuple[str, list[Path]]:
        save(folder / "data.npz", x=PIXELS, y=LABELS)
        return str(folder / "data.npz"), [folder / "data.npz"]

    return write


def _npy(folder: Path) -> tuple[str, list[Path]]:
    np.save(folder / "x.npy", PIXELS)
    return str(folder / "x.npy"), [folder / "x.npy"]


def _npy_fortran(folder: Path) -> tuple[str, list[Path]]:
    np.save(folder / "x.npy", np.asfortranarray(PIXELS.astype(">i4")))
    return str(folder / "x.npy"), [folder / "x.npy"]


def _idx(ending: str) -> Callable[[Path], tuple[str, list[Path]]]:
    def write(folder: Path) -> tuple[str, list[Path]]:
        files = [folder / f"train-{name}-ubyte{ending}" for name in ("images-idx3", "labels-idx1")]
        for file, values in zip(files, (PIXELS, LABELS.astype(np.uint8)), strict=True):
            write_idx(file, values)
        return f"{folder}:train", files

    return write


def _zarr(zarr_format: int) -> Callable[[Path], tuple[str, list[Path]]]:
    def write(folder: Path) -> tuple[str, list[Path]]:
        path = folder / "data.zarr"
        group = zarr.create_group(path, zarr_format=zarr_format)
        # the default of format 2 is Blosc, which numcodecs lets read past the end of a chunk that was cut short
        packed = numcodecs.Zlib() if zarr_format == 2 else "auto"
        for name, values in (("x", PIXELS), ("y", LABELS)):
            group.create_array(name, data=values, chunks=(5, *values.shape[1:]), compressors=packed)
        return str(path), [path / ("x/c/2/0/0" if zarr_format == 3 else "x/2.0.0")]

    return write


def _table(ending: str) -> Callable[[Path], tuple[str, list[Path]]]:
    def write(folder: Path) -> tuple[str, list[Path]]:
        frame = pd.DataFrame(TABLE, columns=["a", "b", "c"]).assign(label=LABELS)
        cuts = [0, 11, ROWS]
        files = [folder / f"{part}.{ending}" for part in range(2)]
        for part, file in enumerate(files):
            rows = frame[cuts[part] : cuts[part + 1]]
            _ = rows.to_parquet(file) if ending == "parquet" else rows.to_csv(file, index=False)
        return str(folder), files

    return write


def _images(folder: Path) -> tuple[str, list[Path]]:
    files = []
    for row, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (folder / f"class {label}").mkdir(exist_ok=True)
        files.append(folder / f"class {label}" / f"{row:02d}.png")
        Image.fromarray(pixels).save(files[-1])
    return str(folder), files


def _named(spec: str) -> Callable[[Path], tuple[str, list[Path]]]:
    return lambda folder: (spec, [])


def _adding(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The adding problem by its definition, of the stream of the first block."""
    rng = np.random.default_rng([5, 0, 0])
    numbers = rng.random((1024, 6), np.float32)
    marks = np.stack([rng.integers(0, 3, 1024), rng.integers(3, 6, 1024)], axis=1)
    x = np.zeros((rows, 6, 2), np.float32)
    x[:, :, 0] = numbers[:rows]
    np.put_along_axis(x[:, :, 1], marks[:rows], 1, axis=1)
    return x, (x[:, :, 0] * x[:, :, 1]).sum(axis=1)


DIGITS = load_digits()
CASES = {
    "digits": Case(
        "`digits`",
        _named("digits:test"),
        DIGITS.images[1437:].astype(np.float32),
        DIGITS.target[1437:].astype(np.int64),
    ),
    # what its values are is told by the definition in test_synthetic
    "synthetic": Case(
        "`synthetic:…`",
        _named("synthetic:rows=23,features=4,classes=3,seed=5"),
        *next(open_source("synthetic:rows=100,features=4,classes=3,seed=5").blocks(ROWS)),
    ),
    "adding": Case("`adding:…`", _named("adding:rows=23,steps=6,seed=5"), *_adding(ROWS)),
    "npz": Case("a .npz file", _npz(np.savez), PIXELS, LABELS),
    "npz, compressed": Case("a .npz file", _npz(np.savez_compressed), PIXELS, LABELS),
    "npy": Case("a .npy file", _npy, PIXELS, None),
    "npy in Fortran order, of a foreign byte order": Case(
        "a .npy file", _npy_fortran, PIXELS.astype("=i4"), None
    ),
    "idx": Case("a folder of idx files (…-images-idx3-ubyte)", _idx(""), PIXELS, LABELS.astype(np.uint8)),
    "idx.gz": Case(
        "a folder of idx files (…-images-idx3-ubyte)", _idx(".gz"), PIXELS, LABELS.astype(np.uint8)
    ),
    "zarr 2": Case("a zarr store", _zarr(2), PIXELS, LABELS),
    "zarr 3": Case("a zarr store", _zarr(3), PIXELS, LABELS),
    "csv": Case("a .csv file or a folder of them", _table("csv"), TABLE, LABELS, {"y": "label"}),
    "csv.gz": Case("a .csv file or a folder of them", _table("csv.gz"), TABLE, LABELS, {"y": "label"}),
    "parquet": Case("a .parquet file or a folder of them", _table("parquet"), TABLE, LABELS, {"y": "label"}),
    "images": Case("a folder of images", _images, PIXELS, LABELS),
}
FILES = [name for name, case in CASES.items() if not case.known_as.startswith("`")]


@dataclass(frozen=True)
class Written:
    case: Case
    spec: str
    files: list[Path]

    def open(self) -> Source:
        return open_source(self.spec, **self.case.options)


@pytest.fixture
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Written]:
    case = CASES[request.param]
    spec, files = case.write(tmp_path)
    return Written(case, spec, files)


every_case = pytest.mark.parametrize("written", CASES, indirect=True)


def test_there_is_a_case_for_every_format():
    assert {case.known_as for case in CASES.values()} == {known.known_as for known in FORMATS}


@every_case
def test_what_was_written_is_read_in_blocks_of_any_size(written):
    source, case = written.open(), written.case
    rows = len(case.x)
    assert (source.name, source.rows, source.x_shape) == (written.spec, rows, case.x.shape[1:])
    assert source.x_dtype == case.x.dtype
    assert (source.y is None) == (case.y is None)
    for size in (1, 2, 7, rows - 1, rows, rows + 5):
        blocks = list(source.blocks(size))
        assert [len(x) for x, _ in blocks] == [min(size, rows - start) for start in range(0, rows, size)]
        assert all(x.dtype == source.x_dtype for x, _ in blocks)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in blocks]), case.x)
        if case.y is not None:
            assert all(y.dtype == source.y_dtype for _, y in blocks)
            np.testing.assert_array_equal(np.concatenate([y for _, y in blocks]), case.y)


@every_case
def test_targets_keep_their_dtype(written):
    source, y = written.open(), written.case.y
    assert (source.y_shape, source.y_dtype) == ((None, None) if y is None else (y.shape[1:], y.dtype))


@every_case
def test_it_is_read_again_from_the_start_after_a_reader_stopped(written):
    source = written.open()
    left = source.blocks(2)
    next(left)
    np.testing.assert_array_equal(next(source.blocks(5))[0], written.case.x[:5])
    np.testing.assert_array_equal(next(left)[0], written.case.x[2:4])


@every_case
def test_an_array_that_is_not_there_is_refused(written):
    with pytest.raises(AltMinError, match=r"no such|leave out"):
        open_source(written.spec, x="no such array")


@pytest.mark.parametrize("written", FILES, indirect=True)
@pytest.mark.parametrize("which", [0, -1])
def test_a_file_that_was_cut_short_never_becomes_a_store(written, which, tmp_path):
    file = written.files[which]
    content = file.read_bytes()
    kept = len(content) // 2
    if (
        file.suffix == ".csv"
    ):  # says nowhere how long it is: that its last line ends too early is all there is to notice
        kept = content.rindex(b",", 0, content.rindex(b","))
    file.write_bytes(content[:kept])
    with pytest.raises(DataError, match=r"^[^\n]+[;:][^\n]+$") as refused:
        ingest(written.open(), tmp_path / "never.zarr")
    assert any(part in str(refused.value) for part in (file.name, written.spec, "x of", "'x'"))
    assert not (tmp_path / "never.zarr").exists()


@pytest.mark.parametrize("written", FILES, indirect=True)
def test_an_empty_file_is_refused(written):
    for file in written.files:
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"^[^\n]+$"):
        for _ in written.open().blocks(4):
            pass


def test_what_is_of_no_kind_is_refused_by_the_list_of_all(tmp_path):
    (tmp_path / "data.doc").write_text("1,2")
    with pytest.raises(DataError, match="not a kind of data that can be read") as refused:
        open_source(tmp_path / "data.doc")
    assert all(known.known_as in str(refused.value) for known in FORMATS)
