"""The tasks of `time_to_quality.py`: networks, thresholds, learning rates, and the settings of altmin-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """A network and what its held-out quality is: mean ½‖x̂−x‖², or accuracy in per cent."""

    network: dict[str, Any]
    """As in a pipeline."""
    thresholds: tuple[float, ...]
    moments: tuple[float, ...]
    """CPU seconds at which the table shows the quality."""
    rates: dict[str, tuple[float, ...]]
    accuracy: bool = False

    @property
    def sizes(self) -> list[int]:
        """Of all layers."""
        return [784, *self.network["hidden_layer_sizes"], 10 if self.accuracy else 784]


def rates(adam: tuple[float, ...], sgd: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    return {"adam": adam, "adam-cosine": adam, "sgd": sgd, "sklearn": adam}


TASKS = {
    "autoencoder": Task(
        {
            "kind": "autoencoder",
            "hidden_layer_sizes": [300],
            "activation": "sigmoid",
            "output_activation": "sigmoid",
        },
        (1.02, 0.77, 0.49, 0.35),
        (10, 30, 100, 300),
        rates((1e-3, 3e-3, 1e-2, 3e-2), (0.03, 0.1, 0.3, 1.0)),
    ),
    "classifier": Task(
        {"kind": "classifier", "hidden_layer_sizes": [256, 256], "activation": "relu"},
        (97.5, 98.0, 98.2),
        (5, 15, 60),
        rates((3e-4, 1e-3, 3e-3, 1e-2), (0.01, 0.03, 0.1, 0.3)),
        accuracy=True,
    ),
    "deep": Task(
        {
            "kind": "autoencoder",
            "hidden_layer_sizes": [1000, 500, 250, 30, 250, 500, 1000],
            "activation": ["tanh"] * 3 + ["identity"] + ["tanh"] * 3,
            "output_activation": "sigmoid",
        },
        (6.9, 3.0, 2.0, 1.5),
        (60, 300, 900, 1800),
        rates((1e-4, 3e-4, 1e-3, 3e-3), (1e-3, 3e-3, 1e-2, 3e-2)),
    ),
}

TUNED: dict[str, dict[str, dict[str, Any]]] = {
    "deep": {
        "data": {"chunk_rows": 1000},
        "solver": {"ridge": 3.0},
        "training": {"group_chunks": 1, "averaging": 0.98},
    },
}
"""The settings of altmin-tuned, by task and table; `data.chunk_rows` is that of the store. A task that is not here has
no such contestant."""
