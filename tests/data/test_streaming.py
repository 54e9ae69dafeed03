"""Ingest of what is larger than memory, and of what killed writers left: with processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from in_order import ingest

from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.shuffling import BUCKET_BYTES
from altmin_dask.data.source import array_source
from altmin_dask.errors import ExistsError
from altmin_dask.storage import atomic
from altmin_dask.storage.atomic import new_folder
from altmin_dask.storage.sample_arrays import SAMPLES

X = np.arange(23 * 6, dtype=np.uint8).reshape(23, 2, 3)
HOME = Path(__file__).parents[2]

MEASURE = """
import sys
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.source import array_source
import numpy as np

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024

source, dest, chunk_rows, shuffle = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
np.ones((64, 64)) @ np.ones((64, 64))
ingest(array_source(np.zeros((2, 2))), dest + ".warm", shuffle=shuffle)
ingest(open_source("synthetic:rows=2,features=2"), dest + ".made", shuffle=shuffle)  # which imports more
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = memory("VmRSS")
ingest(open_source(source), dest, chunk_rows=chunk_rows, shuffle=shuffle)
print(memory("VmHWM") - before)
"""


def peak(source: Path | str, dest: Path, chunk_rows: int, *, shuffle: bool = False) -> int:
    """Bytes by which the memory of a process that ingests grew at most."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), str(dest), str(chunk_rows), str(shuffle)],
        text=True,
        capture_output=True,
        timeout=300,
        cwd=HOME,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def write_source(folder: Path, kind: str, rows: int) -> str:
    """A source of rows × 256 float32, written without ever being in memory."""
    if kind == "synthetic":
        return f"synthetic:rows={rows},features=256,classes=4"
    block = np.random.default_rng(0).random((1024, 256), np.float32)
    path = folder / f"data.{kind.split()[0]}"
    if kind == "npz":
        np.savez(path, x=np.broadcast_to(block, (rows // 1024, 1024, 256)).reshape(rows, 256))
        return str(path)
    if kind == "zarr":
        ingest(open_source(write_source(folder, "npy", rows)), path, chunk_rows=1500)
        return str(path)
    shape = (rows, 256)
    values = np.lib.format.open_memmap(path, "w+", np.float32, shape, fortran_order=kind.endswith("fortran"))
    for start in range(0, rows, 1024):
        values[start : start + 1024] = block
    return str(path)


needs_proc = pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="peaks are read from /proc"
)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "synthetic"])
def test_a_source_far_larger_than_what_is_held(tmp_path, kind):
    """100 chunks of 1 MiB."""
    source = write_source(tmp_path, kind, 100 * 1024)
    assert peak(source, tmp_path / "s.zarr", 1024) < 8 << 20
    assert SampleStore.open(tmp_path / "s.zarr").n_chunks == 100


@needs_proc
@pytest.mark.slow
def test_rows_that_are_shuffled_take_a_bucket_more(tmp_path):
    """A bucket as it came, and what is taken of it."""
    source = write_source(tmp_path, "npy", 400 * 1024)
    assert peak(source, tmp_path / "s.zarr", 1024, shuffle=True) < (8 << 20) + 1.1 * BUCKET_BYTES


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "npy fortran", "npz", "zarr", "synthetic"])
def test_400_megabytes_in_chunks_of_four(tmp_path, kind):
    source = write_source(tmp_path, kind, 400 * 1024)
    # a raw chunk and a stored one, a copy with its checksum, a chunk of the source, and what zarr's threads keep
    assert peak(source, tmp_path / "s.zarr", 4096) < 6 * (4 << 20)
    store = SampleStore.open(tmp_path / "s.zarr")
    last = np.concatenate([x for x, _ in open_source(source).blocks(4096)][-2:])
    np.testing.assert_array_equal(store.x[-len(last) :], last)


# --- what killed writers leave

KILLED = """
import os, signal, sys
from altmin_dask.storage import atomic
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

match sys.argv[2]:
    case "chunk":
        ingest(open_source("synthetic:rows=1797,features=9"), sys.argv[1], progress=kill)
    case "flush":
        atomic._flush_tree = kill
    case "replaced":
        move = atomic.Path.rename
        def between(self, target):
            if str(target) == sys.argv[1]:
                kill()
            return move(self, target)
        atomic.Path.rename = between
    case "old":
        atomic.Layout.remove = kill
ingest(open_source("synthetic:rows=1797,features=9"), sys.argv[1], overwrite=True)
"""


def killed(dest: Path, moment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(dest), moment],
        cwd=HOME,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", ["chunk", pytest.param("flush", marks=pytest.mark.slow)])
def test_the_next_ingest_removes_what_a_killed_one_left(tmp_path, moment):
    killed(tmp_path / "a.zarr", moment)
    (orphan,) = os.listdir(tmp_path)
    assert orphan.startswith(f".a.zarr.partial-{socket.gethostname()}-")
    ingest(array_source(X), tmp_path / "b.zarr")  # another's are left alone
    assert sorted(os.listdir(tmp_path)) == [orphan, "b.zarr"]
    assert ingest(array_source(X), tmp_path / "a.zarr").rows == 23
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", "b.zarr"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "rows"), [("replaced", 23), pytest.param("old", 1797, marks=pytest.mark.slow)]
)
def test_a_store_whose_replacement_was_killed_comes_back(tmp_path, moment, rows):
    ingest(array_source(X), tmp_path / "a.zarr")
    killed(tmp_path / "a.zarr", moment)
    assert len(os.listdir(tmp_path)) == 2
    with pytest.raises(ExistsError, match="exists already; give another destination, or --overwrite"):
        ingest(array_source(X[:4]), tmp_path / "a.zarr")
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert SampleStore.open(tmp_path / "a.zarr").rows == rows


def test_what_a_live_process_or_another_host_writes_is_left_alone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        try:
            names = [
                f".a.zarr.partial-{socket.gethostname()}-{other.pid}-0123abcd",
                ".a.zarr.partial-another-host-999999999-0123abcd",
                ".a.zarr.partial-notes",
            ]
            for name in names:
                (tmp_path / name).mkdir()
            ingest(array_source(X), tmp_path / "a.zarr")
            assert sorted(os.listdir(tmp_path)) == sorted([*names, "a.zarr"])
        finally:
            other.kill()
            other.wait()
    ingest(array_source(X), tmp_path / "a.zarr", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted([*names[1:], "a.zarr"])


def test_a_process_tells_what_it_writes_from_what_one_of_its_number_left(tmp_path):
    """As the first process of a container that was started again."""
    final = tmp_path / "a.zarr"
    (tmp_path / f".a.zarr.partial-{socket.gethostname()}-{os.getpid()}-0123abcd").mkdir()
    with new_folder(final, SAMPLES, replace=False) as partial:
        partial.mkdir()
        atomic.remove_killed(final, SAMPLES.files)
        assert os.listdir(tmp_path) == [partial.name]
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_two_ingests_to_one_place(tmp_path):
    """The one that ends last is told so, and the first one's store stays."""

    def meanwhile(done, _):
        if done == 10:
            ingest(array_source(X[:4]), tmp_path / "a.zarr")

    with pytest.raises(
        ExistsError, match=r"a\.zarr has been made by somebody else in the meantime; give ano"
    ):
        ingest(array_source(X), tmp_path / "a.zarr", chunk_rows=10, progress=meanwhile)
    assert os.listdir(tmp_path) == ["a.zarr"]
    assert SampleStore.open(tmp_path / "a.zarr").rows == 4


def test_everything_is_on_the_disk_before_the_folder_takes_its_place(tmp_path, monkeypatch):
    flushed, flush = [], atomic.flush

    def noted(path):
        flushed.append(str(path.relative_to(tmp_path)))
        flush(path)

    monkeypatch.setattr(atomic, "flush", noted)
    with new_folder(tmp_path / "a", SAMPLES, replace=False) as partial:
        (partial / "x").mkdir(parents=True)
        (partial / "x/0").write_bytes(b"0")
        assert flushed == []
    name = partial.name
    assert flushed[-1] == "."
    assert set(flushed[:-1]) == {name, f"{name}/x", f"{name}/x/0"}


@pytest.mark.parametrize("foreign", [False, True])
def test_folders_that_were_made_for_chunks_go_with_what_a_kill_left(foreign, tmp_path):
    """Zarr makes the folder of a chunk before its file; a file that is nobody's of ours stays, with its folders."""
    left = tmp_path / f".a.zarr.partial-{socket.gethostname()}-999999999-0123abcd"
    (left / "x" / "c" / "7").mkdir(parents=True)
    (left / "row" / "c").mkdir(parents=True)
    (left / "x.unshuffled").write_bytes(b"0" * 8)
    if foreign:
        (left / "x" / "notes.txt").write_text("mine")
    atomic.remove_killed(tmp_path / "a.zarr", SAMPLES.files)
    found = {str(path.relative_to(left)) for path in left.rglob("*")}
    assert found == ({"x", "x/notes.txt"} if foreign else set())
    assert left.exists() == foreign
