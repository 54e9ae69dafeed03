"""How weights reach the tasks: a file that every process reads once an update, and that outlives any of them."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import fsspec
import safetensors.numpy
from safetensors import safe_open

from altmin_dask.errors import MissingError
from altmin_dask.networks.chain import Weights
from altmin_dask.storage.model import layer_names, layer_tensors
from altmin_dask.storage.readers import is_url

KEPT_READINGS = 4
"""Files of weights that a process keeps in memory: those of this step and the last one, and what changes them."""

_lock = threading.Lock()


def read_weights(location: str | os.PathLike[str]) -> Weights:
    """Weights W̃_1 … W̃_L of a committed state, a model, or what an `Exchange` published.

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
        with fsspec.open(name, "rb") as file:
            found = safetensors.numpy.load(file.read())
        return tuple(found[layer] for layer in layer_names(len(found)))
    with safe_open(name, framework="numpy") as tensors:
        layers = sum(key.startswith("layer_") for key in tensors.keys())  # noqa: SIM118 - not a dict
        return tuple(tensors.get_tensor(layer) for layer in layer_names(layers))


@dataclass
class Exchange:
    """A folder, local or at a URL, in which weights wait for the tasks that need them; nothing else is in it.

    What is published can be lost with the machine: only a commit is for good.
    """

    folder: str
    _held: list[str] = field(default_factory=list)

    def publish(self, weights: Weights, name: str, keep: int) -> str:
        """Put arrays where workers can read them by `read_weights`; the same name means the same values.

        The `keep` files published before stay, older ones go.
        """
        location, tensors = f"{self.folder}/{name}.safetensors", layer_tensors(weights)
        if is_url(self.folder):
            filesystem, path = fsspec.core.url_to_fs(location)
            filesystem.pipe_file(path, safetensors.numpy.save(tensors))
        else:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            partial = f"{self.folder}/.{name}.partial"
            safetensors.numpy.save_file(tensors, partial)
            os.replace(partial, location)
        if location not in self._held:
            self._held.append(location)
        for old in self._held[: -keep - 1]:
            self._remove(old)
        self._held = self._held[-keep - 1 :]
        return location

    def clear(self) -> None:
        """Remove everything in the folder, also what a process that was killed has left."""
        with suppress(FileNotFoundError):
            filesystem, root = fsspec.core.url_to_fs(self.folder)
            filesystem.rm(root, recursive=True)
        self._held = []

    @staticmethod
    def _remove(location: str) -> None:
        with suppress(FileNotFoundError):
            filesystem, path = fsspec.core.url_to_fs(location)
            filesystem.rm_file(path)
