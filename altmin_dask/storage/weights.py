"""How weights reach the tasks: a file that every process reads once an update, and that outlives any of them."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import safetensors.numpy
from safetensors import safe_open

from altmin_dask.errors import MissingError
from altmin_dask.storage.locations import (
    filesystem_of,
    is_url,
    names_in,
    read_bytes,
    remove_empty_folder,
    remove_files,
)
from altmin_dask.storage.model import layer_names, layer_tensors
from altmin_dask.types import Weights

KEPT_READINGS = 4
"""Files of weights that a process keeps in memory: those of this step and the last one, and what changes them."""

_lock = threading.Lock()


def read_weights(location: str | os.PathLike[str]) -> Weights:
    """Weights W̃_1 … W̃_L of a committed state, a model, or what an `WeightStore` published.

    Raises
    ------
    MissingError
        If the process, on whatever machine, cannot see the file.
    """
    name = os.fspath(location)
    try:
        if is_url(name):
            return _once(name, ())  # its name is never used twice
        about = os.stat(
            name
        )  # a file of the same name may be of a later run, and a worker outlives many of them
        return _once(name, (about.st_mtime_ns, about.st_ino, about.st_size))
    except FileNotFoundError:
        raise MissingError(
            f"{socket.gethostname()} sees no weights at {name}: give a --run folder that all workers share, "
            "or keep weights and z in an object store by output.z"
        ) from None


def _once(name: str, version: tuple[int, ...]) -> Weights:
    with _lock:  # threads that begin a step together would each read their own
        return _read(name, version)


@lru_cache(maxsize=KEPT_READINGS)
def _read(name: str, version: tuple[int, ...]) -> Weights:
    if is_url(name):
        found = safetensors.numpy.load(read_bytes(name))
        return tuple(found[layer] for layer in layer_names(len(found)))
    with safe_open(name, framework="numpy") as tensors:
        layers = sum(key.startswith("layer_") for key in tensors.keys())  # noqa: SIM118 - not a dict
        return tuple(tensors.get_tensor(layer) for layer in layer_names(layers))


@dataclass
class WeightStore:
    """A folder, local or at a URL, in which weights wait for the tasks that need them.

    What is published can be lost with the machine: only a commit is for good.

    Attributes
    ----------
    folder : str
        The folder. What else may be in it is left alone.
    run : str
        Mark of the run, with which the names of its files begin: no other file is ever removed.
    """

    folder: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    _held: list[str] = field(default_factory=list)

    def publish(self, weights: Weights, name: str, keep: int, read: Collection[str] = ()) -> str:
        """Put arrays where workers can read them by `read_weights`; the same name means the same values.

        The `keep` files published before stay, older ones go, but not those that are still to be `read`.
        """
        file, tensors = f"{self.run}-{name}.safetensors", layer_tensors(weights)
        location = f"{self.folder}/{file}"
        if is_url(self.folder):
            filesystem, path = filesystem_of(location)
            filesystem.pipe_file(path, safetensors.numpy.save(tensors))
        else:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            partial = f"{self.folder}/.{file}.partial"
            safetensors.numpy.save_file(tensors, partial)
            os.replace(partial, location)
        if file not in self._held:
            self._held.append(file)
        needed = {f"{self.folder}/{each}" for each in self._held[-keep - 1 :]} | set(read)
        remove_files(self.folder, [each for each in self._held if f"{self.folder}/{each}" not in needed])
        self._held = [each for each in self._held if f"{self.folder}/{each}" in needed]
        return location

    def clear(self) -> None:
        """Remove all files of the run, also what a process that was killed has left, and the folder if it is empty."""
        marks = f"{self.run}-", f".{self.run}-"
        remove_files(self.folder, [name for name in names_in(self.folder) if name.startswith(marks)])
        remove_empty_folder(self.folder)
        self._held = []
