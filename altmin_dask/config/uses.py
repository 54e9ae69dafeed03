"""What the tables of a pipeline cannot say: who uses a setting, what it is if it is left out, what Python calls it.

All of it is declared here, by the names of settings, and shown by `altmin settings` and the documentation; tests
compare it with what estimators have and with what runs record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from altmin_dask.config.network import KINDS, NetworkTable
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.losses import LOSSES
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import KEEP_Z
from altmin_dask.table_options import DATES, FILLS, MAX_CATEGORIES, UNKNOWN

SCHEDULES = tuple(dict.fromkeys(name for penalty in PENALTIES.values() for name in penalty.schedules))
_RECURRENT = tuple(name for name, kind in KINDS.items() if kind.recurrent)
_CHAINS = tuple(name for name in KINDS if name not in _RECURRENT)
_LABELS = tuple(name for name, kind in KINDS.items() if kind.target == "labels")
_TARGETS = tuple(name for name, kind in KINDS.items() if kind.target != "inputs")
_Z = tuple(name for name in SCHEDULES if name in KEEP_Z)
_GROUPS = tuple(name for name in SCHEDULES if name != "batch")


@dataclass(frozen=True)
class Uses:
    """Which kinds of networks and which schedules use a setting; None are all of them.

    Attributes
    ----------
    kinds, schedules : tuple of str, optional
        Their names.
    only : str
        What else there has to be.
    """

    kinds: tuple[str, ...] | None = None
    schedules: tuple[str, ...] | None = None
    only: str = ""


_RAW = Uses(only="sources that are no stores yet")
_TABLES = Uses(only="tables: csv and parquet")
_Z_UPDATE = Uses(only='schedules that keep z, and "kfac" with a finite mu')
_LOCAL = Uses(only='cluster.kind = "local"')
USES: Mapping[str, Uses] = MappingProxyType(
    {
        "data.x": Uses(only="sources of named arrays, and tables"),
        "data.y": Uses(kinds=_TARGETS, only="sources of named arrays, and tables"),
        "data.scale": _RAW,
        "data.standardize": _RAW,
        "data.shuffle": _RAW,
        "data.chunk_rows": _RAW,
        "data.missing": _TABLES,
        "data.handle_unknown": _TABLES,
        "data.max_categories": _TABLES,
        "data.min_frequency": _TABLES,
        "data.drop": _TABLES,
        "data.dates": _TABLES,
        "data.csv": Uses(only="csv files"),
        "network.classes": Uses(kinds=_LABELS),
        "network.head_layer_sizes": Uses(kinds=_RECURRENT),
        "network.steps": Uses(kinds=_RECURRENT),
        "network.loss_at": Uses(kinds=_RECURRENT),
        "network.recurrent_initialization": Uses(kinds=_RECURRENT),
        "solver.augmentation": Uses(schedules=_Z, only='solver.penalty = "l1" or "multipliers"'),
        "solver.balancing": Uses(schedules=_Z, only='solver.penalty = "l1" or "multipliers"'),
        "solver.residual_tol": Uses(schedules=_Z, only='solver.penalty = "l1" or "multipliers"'),
        "solver.output_damping": Uses(schedules=("kfac",)),
        "solver.weight_decay": Uses(schedules=("kfac",)),
        "solver.newton_steps": _Z_UPDATE,
        "solver.cg_iterations": _Z_UPDATE,
        "solver.cg_tolerance": _Z_UPDATE,
        "solver.damping": _Z_UPDATE,
        "solver.curvature": Uses(kinds=_CHAINS, only=_Z_UPDATE.only),
        "training.group_chunks": Uses(schedules=_GROUPS),
        "training.chunk_steps": Uses(schedules=("kfac",)),
        "training.first_window": Uses(schedules=("windows",)),
        "training.window_passes": Uses(schedules=("windows",)),
        "training.max_staleness": Uses(schedules=("kfac",)),
        "training.averaging": Uses(schedules=("kfac",)),
        "training.evaluation_share": Uses(schedules=("kfac",)),
        "cluster.threads_per_worker": _LOCAL,
        "cluster.dashboard": _LOCAL,
        "cluster.connect_timeout": Uses(only="a scheduler that is named"),
        "cluster.patience": Uses(only="workers of a cluster"),
        "output.performance": Uses(only="workers of a cluster"),
    }
)
"""Whatever is not named is used by all."""

LEFT_OUT: Mapping[str, str] = MappingProxyType(
    {
        "data.x": "`x`, or all columns but the targets",
        "data.y": "`y`",
        "data.validation": "nothing is held out",
        "data.missing": f'"{FILLS[-1]}"',
        "data.handle_unknown": f'"{UNKNOWN[0]}"',
        "data.max_categories": str(MAX_CATEGORIES),
        "data.min_frequency": "any value has a number of its own",
        "data.dates": f'"{DATES[0]}"',
        "data.drop": "all columns but the targets are inputs",
        "data.csv": "as `pandas.read_csv` has it",
        "network.layers": "hidden_layer_sizes say which there are",
        "training.max_cpu_seconds": "no limit",
        "output.run": "a new folder under runs/",
        "output.z": "the run folder",
        "output.title": "the name of the run folder",
    }
)
"""What it is the same as if a setting without a default is left out. All other such settings, and those that are
"auto", are resolved for each run (`altmin_dask.planning.resolved`)."""

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "hidden_layer_sizes": "network.hidden_layer_sizes",
        "activation": "network.activation",
        "layers": "network.layers",
        "initialization": "network.initialization",
        "output_activation": "network.output_activation",
        "loss": "network.loss",
        "head_layer_sizes": "network.head_layer_sizes",
        "steps": "network.steps",
        "recurrent_initialization": "network.recurrent_initialization",
        "standardize": "network.standardize",
        "dtype": "network.dtype",
        "penalty": "solver.penalty",
        "mu": "solver.mu",
        "ridge": "solver.ridge",
        "proximal": "solver.proximal",
        "weight_decay": "solver.weight_decay",
        "schedule": "training.schedule",
        "max_sweeps": "training.max_sweeps",
        "n_iter_no_change": "training.n_iter_no_change",
        "tol": "training.tol",
        "group_chunks": "training.group_chunks",
        "max_staleness": "training.max_staleness",
        "random_state": "training.seed",
        "chunk_rows": "data.chunk_rows",
        "workers": "cluster.workers",
    }
)
"""Parameters of the estimators, and the settings that they are. Others are reached by the parameter ``settings``."""
KINDS_WITH: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "layers": _CHAINS,
        "initialization": _CHAINS,
        "output_activation": tuple(name for name in KINDS if name not in _LABELS),
        "loss": tuple(name for name in _CHAINS if name not in _LABELS),
        "head_layer_sizes": _RECURRENT,
        "steps": _RECURRENT,
        "recurrent_initialization": _RECURRENT,
    }
)
"""Kinds whose estimators have a parameter, where that are not all."""


def estimator_of(kind: str) -> str:
    """What the estimator of a kind of network is called.

    Examples
    --------
    >>> estimator_of("recurrent_classifier")
    'AltMinRecurrentClassifier'
    """
    return f"AltMin{kind.title().replace('_', '')}"


def _words_of(name: str, *but: str) -> tuple[str, ...]:
    """The words that a setting of networks may be, but for some."""
    return tuple(word for word in get_args(NetworkTable.model_fields[name].annotation) if word not in but)


def _losses_of(kind: str) -> tuple[str, ...]:
    """The losses whose targets a kind has."""
    labels = kind in _LABELS
    return tuple(name for name, make in LOSSES.items() if (make(None).target == "labels") == labels)


CHOICES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "network.loss": {kind: _losses_of(kind) for kind in KINDS},
        "network.output_activation": {
            kind: ("softmax",) if kind in _LABELS else tuple(ACTIVATIONS) for kind in KINDS
        },
        "network.standardize": {
            kind: _words_of("standardize", "targets", "both", *([] if kind in _LABELS else ["inputs"]))
            if kind not in _TARGETS or kind in _LABELS
            else _words_of("standardize")
            for kind in KINDS
        },
        "network.initialization": {
            kind: _words_of("initialization", *(["whitened", "layerwise"] if kind in _RECURRENT else []))
            for kind in KINDS
        },
    }
)
"""The words that kinds take, where not each takes all: others are refused."""


@dataclass(frozen=True)
class Difference:
    """A default that is another in Python.

    Attributes
    ----------
    value : object
        The default of the estimators.
    kinds : tuple of str
        Of these kinds.
    reason : str
        Why it is another.
    """

    value: object
    kinds: tuple[str, ...]
    reason: str


DIFFERENCES: Mapping[str, tuple[Difference, ...]] = MappingProxyType(
    {
        "network.hidden_layer_sizes": (
            Difference((32,), ("autoencoder",), "`transform` is to give fewer numbers than a sample has"),
        ),
        "network.activation": (
            Difference("sigmoid", ("autoencoder",), "the same, written out"),
            Difference("relu", ("classifier", "regressor"), "the same, written out"),
            Difference("tanh", _RECURRENT, "the same, written out"),
        ),
        "network.output_activation": (
            Difference(
                None,
                ("autoencoder",),
                "identity by the squared loss: samples that a scaler has gone over are not in [0, 1]",
            ),
        ),
        "network.loss": (Difference("squared", ("autoencoder", "regressor"), "the same, written out"),),
        "network.recurrent_initialization": (Difference("auto", _RECURRENT, "the same, written out"),),
        "network.dtype": (
            Difference(
                "auto",
                tuple(KINDS),
                "as in scikit-learn, float32 only for samples of float32; a file is read in what is asked for",
            ),
        ),
        "training.max_sweeps": (
            Difference(
                30,
                ("classifier", "regressor"),
                "on small tables, of which nothing is held out by default, as many as 300 steps over-fit",
            ),
        ),
        "training.seed": (
            Difference(None, tuple(KINDS), "as in scikit-learn, None draws another seed in every fit"),
        ),
        "data.chunk_rows": (
            Difference(
                None,
                tuple(KINDS),
                "the same, but 2,000 rows of data of at most 1,048,576 numbers, so that a step is one task; "
                'no "auto"',
            ),
        ),
        "cluster.workers": (
            Difference(None, tuple(KINDS), "the same, but one where there is but one chunk"),
        ),
    }
)
"""Every default that estimators and pipelines do not share, with its reason."""
