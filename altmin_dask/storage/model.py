"""A trained model on disk: weights as safetensors, everything else as JSON; nothing is ever unpickled."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from altmin_dask.errors import DataError, MissingError
from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Weights
from altmin_dask.networks.network import Network, build_network, describe_network
from altmin_dask.storage.atomic import write_json, write_tensors
from altmin_dask.storage.preparation import Preparation, Scaling

VERSION = 1
KINDS = ("autoencoder", "classifier", "regressor", "recurrent_classifier", "recurrent_regressor")


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its weights, and what is needed to feed it.

    Attributes
    ----------
    kind : {"autoencoder", "classifier", "regressor", "recurrent_classifier", "recurrent_regressor"}
        What its output is compared with: the samples, labels, or real targets.
    network : Network
        The architecture and loss.
    weights : tuple of ndarray
        W̃_1 … W̃_L.
    sample_shape : tuple of int
        Shape of one sample, e.g. (28, 28).
    scale : float
        What raw samples were divided by before training.
    preparation : Preparation or None
        What else was done to them.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinAutoencoder, Model
    >>> x = np.random.default_rng(0).normal(size=(100, 6))
    >>> AltMinAutoencoder(3, max_sweeps=3, random_state=0).fit(x).save("saved")
    >>> model = Model.load("saved")
    >>> [weights.shape for weights in model.weights]  # biases in the last column
    [(3, 7), (6, 4)]
    >>> model.predict(x).shape
    (100, 6)
    """

    kind: str
    network: Network
    weights: Weights
    sample_shape: tuple[int, ...]
    scale: float = 1.0
    preparation: Preparation | None = None

    @property
    def output_scaling(self) -> Scaling | None:
        """What gives outputs the units of the raw data."""
        if self.preparation is None:
            return None
        return self.preparation.x if self.kind == "autoencoder" else self.preparation.y

    def predict(self, x: Array) -> Array:
        """Network outputs φ_L of a forward pass, (n, d_L); x: ``(n, *sample_shape)``, already scaled."""
        return self.network.predict(self.weights, x)

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``model.json``; each file appears complete or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / "weights.safetensors", layer_tensors(self.weights))
        write_json(
            folder / "model.json",
            {
                "version": VERSION,
                "kind": self.kind,
                "network": describe_network(self.network),
                "sample_shape": list(self.sample_shape),
                "scale": self.scale,
                "preparation": None if self.preparation is None else self.preparation.to_json(),
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Model:
        """Read what `save` wrote.

        Raises
        ------
        MissingError
            If there is no model in the folder.
        DataError
            If its files are damaged or do not fit together.
        """
        folder = Path(folder)
        try:
            settings = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "weights.safetensors")
        except FileNotFoundError as error:
            missing = error.filename or "its file of weights"
            raise MissingError(f"{folder} holds no trained model: {missing} is missing") from None
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"the model in {folder} is damaged: {error}") from None
        try:
            if settings["version"] > VERSION:
                raise DataError(
                    f"the model in {folder} is of a later version of altmin-dask; install that one"
                )
            if settings["kind"] not in KINDS:
                raise ValueError(f"its kind is {settings['kind']!r}")
            network = build_network(settings["network"])
            weights = tuple(tensors[name] for name in layer_names(len(network.widths)))
            if tuple(w.shape for w in weights) != network.shapes:
                raise ValueError("the weights' shapes are not the network's")
            if not all(w.dtype.kind == "f" and np.isfinite(w).all() for w in weights):
                raise ValueError("the weights are not finite numbers")
            sample_shape, scale = tuple(settings["sample_shape"]), float(settings["scale"])
            if math.prod(sample_shape) != network.sizes[0]:
                raise ValueError(f"samples of shape {sample_shape} do not fit {network.sizes[0]} inputs")
            if not 0 < scale < math.inf:
                raise ValueError(f"samples cannot be divided by {scale}")
            preparation = Preparation.from_json(settings.get("preparation"))
            return cls(settings["kind"], network, weights, sample_shape, scale, preparation)
        except DataError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the model in {folder} is damaged: {error}") from None


def layer_names(layers: int) -> list[str]:
    """Names of the tensors W̃_1 … W̃_L in a file."""
    return [f"layer_{i}" for i in range(1, layers + 1)]


def layer_tensors(weights: Weights) -> dict[str, Any]:
    """Weights by the names they have in a file, in the order of memory that safetensors takes for granted."""
    return dict(zip(layer_names(len(weights)), map(np.ascontiguousarray, weights), strict=True))
