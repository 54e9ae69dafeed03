"""A trained network as PyTorch modules, and its weights under the names these have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from altmin_dask.errors import MissingError
from altmin_dask.export.files import place_for
from altmin_dask.export.outputs import output_torch
from altmin_dask.storage.atomic import write_tensors
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import PRODUCER
from altmin_dask.types import Array


def sequential(model: Model) -> Any:
    """A `torch.nn.Sequential` of linear layers and activations; samples (rows, features) to outputs (rows, d_L).

    Raises
    ------
    MissingError
        If PyTorch is not installed.
    ConfigError
        If the network has layers that are not exported: recurrent ones.

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
    modules: list[Any] = []
    for layer, w in zip(model.network.layers, model.weights, strict=True):
        modules += [layer.to_torch(w, torch), layer.activation.torch(torch.nn)]
    modules[-1] = output_torch(model.network, torch.nn)
    return torch.nn.Sequential(*modules)


def state_dict(model: Model) -> dict[str, Array]:
    """The weights by the names that the modules of `sequential` give them (``0.weight``, ``0.bias``, ``2.weight`` …).

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
    found: dict[str, Array] = {}
    for number, (layer, w) in enumerate(zip(model.network.layers, model.weights, strict=True)):
        for name, values in layer.torch_tensors(w).items():
            found[f"{2 * number}.{name}"] = np.ascontiguousarray(values)
    return found


def write_safetensors(model: Model, file: str | os.PathLike[str]) -> Path:
    """Write the tensors of `state_dict` as a safetensors file; an exported one that is there is replaced.

    Raises
    ------
    ExistsError
        If there is anything else.
    ConfigError
        If the network has layers that are not exported: recurrent ones.
    """
    tensors, path = state_dict(model), place_for(file, _producer)
    write_tensors(path, tensors, {"producer": PRODUCER})
    return Path(file)


def _producer(file: Path) -> str | None:
    with safe_open(file, framework="numpy") as tensors:
        found: str | None = (tensors.metadata() or {}).get("producer")
    return found
