"""Small models of every kind."""

from __future__ import annotations

from altmin_dask.networks.builders import dense_network
from altmin_dask.storage.model import Model


def make_model(kind: str = "autoencoder", dtype: str = "float32") -> Model:
    loss, output, outputs = {
        "autoencoder": ("squared", "sigmoid", 6),
        "classifier": ("cross_entropy", None, 3),
        "regressor": ("squared", None, 1),
    }[kind]
    network = dense_network([6, 4, 3, outputs], ["tanh", "relu"], loss, output)
    return Model(kind, network, network.initial_weights(1, dtype), (2, 3), 255.0)
