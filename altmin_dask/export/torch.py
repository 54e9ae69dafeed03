"""A trained network as PyTorch modules, and its weights under the names these have."""

from __future__ import annotations

import json
import os
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from altmin_dask.errors import MissingError
from altmin_dask.export.files import place_for
from altmin_dask.export.outputs import output_torch, warn_of_float32
from altmin_dask.storage.atomic import write_bytes, write_tensors
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import PRODUCER
from altmin_dask.types import Array


def sequential(model: Model) -> Any:
    """A `torch.nn.Sequential` of linear layers and activations; raw samples (rows, features) to outputs (rows, d_L).

    Where samples were divided or standardized before training, its first module does it, and its last one gives outputs
    the units of the raw data. Of a table with text, numbers stand for the values of a column already.

    Raises
    ------
    MissingError
        If PyTorch is not installed.
    ConfigError
        If the network has layers that are not exported: recurrent ones.

    Warns
    -----
    AltMinWarning
        If it is of float32, and what was standardized lies closer together, for its size, than that tells apart.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinRegressor, sequential
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = AltMinRegressor(5, "tanh", max_sweeps=3, random_state=0).fit(x, x[:, 0]).model_
    >>> sequential(model)  # doctest: +SKIP
    Sequential(
      (0): Linear(in_features=4, out_features=5, bias=True)
      (1): Tanh()
      (2): Linear(in_features=5, out_features=1, bias=True)
      (3): Identity()
    )
    """
    try:
        import torch
    except ImportError:
        raise MissingError("PyTorch is not installed; `pip install torch`") from None
    from altmin_dask.export.torch_modules import Affine

    modules: list[Any] = []
    for layer, w in zip(model.network.layers, model.weights, strict=True):
        modules += [layer.to_torch(w, torch), layer.activation.torch(torch.nn)]
    modules[-1] = output_torch(model.network, torch.nn)
    first, last = _affine(model)
    if first is not None:
        modules.insert(0, Affine(*first))
    if last is not None:
        modules.append(Affine(*last, undo=True))
    return torch.nn.Sequential(*modules)


def _affine(model: Model) -> tuple[tuple[Array, Array] | None, tuple[Array, Array] | None]:
    """Shift and scale of what is done to raw samples, and of what is undone in outputs."""
    dtype, last = model.weights[0].dtype, model.output_scaling
    if dtype == np.float32:
        warn_of_float32(model, "the module")
    undone = None if last is None else (np.array(last.shift, dtype), np.array(last.scale, dtype))
    if not model.prepares:
        return None, undone
    size, how = model.network.sizes[0], model.preparation
    shift, scale = np.zeros(size), np.full(size, model.scale)
    if how is not None and how.x is not None:
        shift, scale = model.scale * np.array(how.x.shift), model.scale * np.array(how.x.scale)
    return (shift.astype(dtype), scale.astype(dtype)), undone


def state_dict(model: Model) -> dict[str, Array]:
    """The weights by the names that the modules of `sequential` give them (``0.weight``, ``0.bias``, ``2.weight`` …).

    Where there is a first module that scales samples, these begin with 1, after ``0.shift`` and ``0.scale``.

    Raises
    ------
    ConfigError
        If the network has layers that are not exported: recurrent ones.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinRegressor, state_dict
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = AltMinRegressor(5, "tanh", max_sweeps=3, random_state=0).fit(x, x[:, 0]).model_
    >>> {name: values.shape for name, values in state_dict(model).items()}
    {'0.weight': (5, 4), '0.bias': (5,), '2.weight': (1, 5), '2.bias': (1,)}
    """
    first, last = _affine(model)
    found: dict[str, Array] = {}
    number = 0
    if first is not None:
        found["0.shift"], found["0.scale"] = first
        number = 1
    for layer, w in zip(model.network.layers, model.weights, strict=True):
        for name, values in layer.torch_tensors(w).items():
            found[f"{number}.{name}"] = np.ascontiguousarray(values)
        number += 2
    if last is not None:
        found[f"{number}.shift"], found[f"{number}.scale"] = last
    return found


def write_safetensors(model: Model, file: str | os.PathLike[str]) -> Path:
    """Write the tensors of `state_dict` as a safetensors file; an exported one that is there is replaced.

    What tensors do not say is in its metadata ``model``, as one JSON object: ``kind``, ``network`` with layers,
    activations and loss, ``scale`` and ``preparation``, which is what is done to raw samples, and ``classes``, the
    names of labels.

    Raises
    ------
    ExistsError
        If there is anything else.
    ConfigError
        If the network has layers that are not exported: recurrent ones.
    """
    tensors, path = state_dict(model), place_for(file, _producer)
    # of several entries, safetensors writes now one first, now another
    write_tensors(path, tensors, {"model": json.dumps({"producer": PRODUCER, **described(model)})})
    return Path(file)


def write_pt2(model: Model, file: str | os.PathLike[str]) -> Path:
    """Write `sequential` as a file that ``torch.export.load`` reads, without this package; may replace another one.

    ``torch.export.load(file).module()`` takes raw samples (rows, …). What `write_safetensors` has as metadata is in
    extra files of these names.

    Raises
    ------
    MissingError
        If PyTorch is not installed.
    ExistsError
        If there is anything else.
    ConfigError
        If the network has layers that are not exported: recurrent ones.
    """
    module = sequential(model)
    path = place_for(file, _producer_of_archive)
    import torch

    example = torch.zeros((2, *model.sample_shape), dtype=next(module.parameters()).dtype)
    content = BytesIO()
    rows = ({0: torch.export.Dim("rows", min=1)},)
    program = torch.export.export(module.eval(), (example,), dynamic_shapes=rows)
    torch.export.save(
        program, content, extra_files={"model": json.dumps({"producer": PRODUCER, **described(model)})}
    )
    write_bytes(path, content.getvalue())
    return Path(file)


def described(model: Model) -> dict[str, Any]:
    """What belongs to the weights of a model, as JSON values."""
    how = model.preparation
    return {
        "kind": model.kind,
        "network": model.network.describe(),
        "scale": model.scale,
        "preparation": None if how is None else how.to_json(),
        "inputs": None if how is None else list(how.names),
        "classes": None if how is None or how.called is None else list(how.called),
    }


def _producer(file: Path) -> str | None:
    with safe_open(file, framework="numpy") as tensors:
        about = tensors.metadata() or {}
    if "producer" in about:  # of an earlier version
        return str(about["producer"])
    return _producer_in(about.get("model", "{}"))


def _producer_of_archive(file: Path) -> str | None:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/extra/model")]
        return _producer_in(archive.read(names[0]).decode()) if names else None


def _producer_in(content: str) -> str | None:
    found: str | None = json.loads(content).get("producer")
    return found
