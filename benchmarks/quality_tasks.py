"""The tasks of `time_to_quality.py`: networks, thresholds, who takes part, and where their searches begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

STARTS = "random", "whitened"
"""Initial weights: those of `[network] initialization`, made by altmin's engine for every contestant."""
AVERAGES = 0.95, 0.98, 0.99, 0.999
"""Decays of the running means of the weights; which one, validation decides."""
ITERATION_AVERAGES = 0.5, 0.9
"""Those of L-BFGS, which takes few iterations, and few steps are between two of our groups."""
RATES = tuple(float(f"{digit}e{power}") for power in range(-6, 2) for digit in (1, 3))
"""Those a search moves among."""
WEIGHT_DECAYS = 1e-3, 1e-2, 1e-1
BATCHES = 32, 64, 128, 512
LBFGS_BATCHES = 10_000, 50_000
"""Samples of a gradient; the larger are all, in the search."""
OURS = "altmin", "altmin-tuned", "altmin-raw"

Setting = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A network and what its held-out quality is: mean ½‖x̂−x‖², or accuracy in per cent."""

    network: dict[str, Any]
    """As in a pipeline."""
    thresholds: tuple[float, ...]
    moments: tuple[float, ...]
    """CPU seconds at which the table shows the quality."""
    rates: dict[str, tuple[float, ...]]
    """By optimizer: where the search for a rate begins; it ends when both neighbours of the best are worse."""
    horizons: tuple[float, ...]
    """CPU seconds over which a cosine decay goes."""
    seconds: float
    """Budget of a run."""
    rungs: tuple[float, ...]
    """Budgets of the search: all settings for the first, the best third for the next."""
    longest_search: float
    """The search for a rate that decays is over no longer a time: what is longer takes over the choice."""
    tuned: tuple[Setting, ...]
    """What altmin-tuned chooses from: tables of a pipeline, and `chunk_rows` of the store."""
    accuracy: bool = False
    first_evaluation: float = 0.5
    """CPU seconds; eight in a decade follow."""

    @property
    def sizes(self) -> list[int]:
        """Of all layers."""
        return [784, *self.network["hidden_layer_sizes"], 10 if self.accuracy else 784]

    @property
    def default_start(self) -> str:
        """What altmin starts from unless told otherwise."""
        from altmin_dask.config import NetworkTable

        return NetworkTable.model_validate(self.network).start


def grid(**values: Sequence[Any]) -> tuple[Setting, ...]:
    """All combinations."""
    return tuple(dict(zip(values, some, strict=True)) for some in product(*values.values()))


TASKS = {
    "autoencoder": Task(
        {
            "kind": "autoencoder",
            "hidden_layer_sizes": [300],
            "activation": "sigmoid",
            "output_activation": "sigmoid",
        },
        (1.02, 0.77, 0.49, 0.35),
        (3, 10, 30, 100, 300),
        {"adam": (3e-3, 1e-2), "sgd": (0.03, 0.1)},
        (10.0, 25.0, 60.0, 300.0),
        30.0,
        (3.0, 9.0),
        20.0,
        grid(chunk_rows=(None, 1000), averaging=(0.95, 0.98)),
    ),
    "classifier": Task(
        {"kind": "classifier", "hidden_layer_sizes": [256, 256], "activation": "relu"},
        (97.5, 98.0, 98.2),
        (3, 6, 20, 60),
        {"adam": (1e-3, 3e-3), "sgd": (0.03, 0.1), "sklearn": (1e-3,)},
        (6.0, 20.0, 60.0),
        20.0,
        (2.0, 6.0),
        6.0,
        grid(chunk_rows=(None, 1000), averaging=(0.95, 0.98), ridge=(0.005, 3.0)),
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
        (60, 150, 300, 900, 1800),
        {"adam": (3e-4, 1e-3), "sgd": (1e-3, 3e-3)},
        (300.0, 900.0, 1800.0),
        300.0,
        (10.0, 30.0),
        30.0,
        grid(chunk_rows=(None, 1000), averaging=(0.95, 0.98), ridge=(0.005, 3.0)),
        first_evaluation=5.0,
    ),
}


@dataclass(frozen=True)
class Contestant:
    """A row of the table, before it is told apart by start and averaging.

    Attributes
    ----------
    name : str
        The row's.
    optimizer : str
        What runs.
    begin : sequence of dict
        The settings that the search begins with; added to each of those of `after`, if there is one.
    moves : tuple of str
        What the search varies from the best setting on: "rate", by factors of about 3, and "batch".
    after : str
        The contestant from whose choice the search begins.
    rungs : sequence of float
        Budgets of the search, CPU seconds.
    seconds : float
        Budget of the finals.
    averages : sequence of float
        Decays of the running mean that are tried.
    starts : tuple of str
        Which there are.
    """

    name: str
    optimizer: str
    begin: tuple[Setting, ...]
    seconds: float
    rungs: tuple[float, ...] = ()
    moves: tuple[str, ...] = ("rate",)
    after: str = ""
    averages: tuple[float, ...] = AVERAGES
    starts: tuple[str, ...] = field(default=STARTS)

    @property
    def cosine(self) -> bool:
        """Whether the rate decays to 0 over the budget."""
        return "cosine" in self.name


def contestants_of(
    name: str, seconds: float, horizons: Sequence[float], rungs: tuple[float, ...]
) -> tuple[Contestant, ...]:
    """All of a task, those first that others begin from."""
    task, last = TASKS[name], rungs[-1]
    longest = task.longest_search * last / task.rungs[-1]

    def at(optimizer: str) -> tuple[Setting, ...]:
        return grid(batch=(128,), rate=task.rates[optimizer])

    def of_horizon(number: int, horizon: float) -> Contestant:
        before = f"adam-cosine-{horizons[number - 1]:g}" if number else "adam"
        moves = ("rate",) if number else ("rate", "batch")
        searched = (min(horizon, longest),)
        return Contestant(f"adam-cosine-{horizon:g}", "adam", ({},), horizon, searched, moves, before)

    found = [
        Contestant("altmin", "altmin", ({},), seconds),
        Contestant("altmin-raw", "altmin", ({"averaging": 0.0},), seconds),
        Contestant("altmin-tuned", "altmin", task.tuned, seconds, rungs, (), starts=(task.default_start,)),
        Contestant("adam", "adam", at("adam"), seconds, rungs, ("rate", "batch")),
        Contestant("adamw", "adamw", grid(decay=WEIGHT_DECAYS), seconds, (last,), after="adam"),
        *(of_horizon(number, horizon) for number, horizon in enumerate(horizons)),
        Contestant("sgd", "sgd", at("sgd"), seconds, rungs, ("rate", "batch")),
        Contestant("lbfgs", "lbfgs", grid(batch=LBFGS_BATCHES), seconds, (last,), (), "", ITERATION_AVERAGES),
    ]
    if task.accuracy:
        found.append(Contestant("sklearn", "sklearn", at("sklearn"), seconds, rungs))
    return tuple(found)
