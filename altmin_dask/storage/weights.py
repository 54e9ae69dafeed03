"""How weights reach the tasks: a file that every process reads once an update, and that outlives any of them."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from functools import lru_cache

import fsspec
import safetensors.numpy
from safetensors import safe_open

from altmin_dask.errors import MissingError
from altmin_dask.networks.chain import Weights
from altmin_dask.storage.model import layer_names, layer_tensors
from altmin_dask.storage.readers import is_url

_lock = threading.Lock()


def read_weights(location: str | os.PathLike[str]) -> Weights:
    """Weights W̃_1 … W̃_L of a committed state, a model, or what `publish_weights` wrote.

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


@lru_cache(maxsize=2)
def _read(name: str, version: tuple[int, ...]) -> Weights:
    if is_url(name):
        with fsspec.open(name, "rb") as file:
            found = safetensors.numpy.load(file.read())
        return tuple(found[layer] for layer in layer_names(len(found)))
    with safe_open(name, framework="numpy") as tensors:
        layers = sum(key.startswith("layer_") for key in tensors.keys())  # noqa: SIM118 - not a dict
        return tuple(tensors.get_tensor(layer) for layer in layer_names(layers))


def publish_weights(weights: Weights, folder: str, number: int) -> str:
    """Put weights where workers without a common file system can read them; the two newest are kept.

    Parameters
    ----------
    weights : tuple of ndarray
        W̃_1 … W̃_L.
    folder : str
        URL of a folder for nothing else.
    number : int
        Of the update; weights of the same number are the same.

    Returns
    -------
    str
        The URL for `read_weights`.
    """
    filesystem, root = fsspec.core.url_to_fs(folder)
    filesystem.pipe_file(f"{root}/{number:08d}.safetensors", safetensors.numpy.save(layer_tensors(weights)))
    with suppress(FileNotFoundError):
        filesystem.rm_file(f"{root}/{number - 2:08d}.safetensors")
    return f"{folder}/{number:08d}.safetensors"
