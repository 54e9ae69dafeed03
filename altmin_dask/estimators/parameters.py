"""The parameters of the estimators: each is declared once, with its default and what help says of it.

scikit-learn wants every parameter in the signature of ``__init__``, which does nothing but keep it. That is what a
dataclass is: `parametrized` makes one, and writes the sections "Parameters" and "Attributes" of its docstring. A
subclass that writes ``max_sweeps: float = 30`` has another default, and the same words. What a parameter may be that is
a setting of pipelines, too, is said by the catalogue of these.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import textwrap
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_origin

import numpy as np

from altmin_dask.config import KINDS, NetworkTable, SolverTable, TrainingTable
from altmin_dask.config.catalogue import catalogue
from altmin_dask.config.messages import ELSEWHERE, absent, either
from altmin_dask.config.pipeline import RIDGE_OF_Z
from altmin_dask.config.uses import PARAMETERS
from altmin_dask.errors import did_you_mean
from altmin_dask.networks.activations import ACTIVATIONS

_WIDTH = 100
T_ = TypeVar("T_")

_LEARNT = """\
model_ : Model
    The network with its weights.
coefs_, intercepts_ : list of ndarray
    Weights (inputs, outputs) and biases (outputs,) of every layer.
history_ : list of dict
    All records of the run: losses, seconds, sweeps.
loss_curve_ : list of float
    The loss of the samples trained on, from every record.
best_loss_ : float
    Lowest loss of the samples held out; without any, of those trained on, without the ridge.
best_validation_score_ : float or None
    Score of the samples held out, with `early_stopping`.
n_iter_ : int
    Sweeps begun.
n_features_in_ : int
    Features of a sample.
feature_names_in_ : ndarray of str
    Their names, where X was a frame."""
"""What every estimator has learnt after `fit`."""


def parameter(doc: str | None = None, *, default: Any, kw_only: bool = True) -> Any:
    """Declare a parameter.

    Parameters
    ----------
    doc : str, optional
        What help says of it; by default what the base class says.
    default : object
        Its default; a constant.
    kw_only : bool
        Whether it has to be given by its name.
    """
    metadata = {} if doc is None else {"doc": doc}
    return dataclasses.field(default=default, kw_only=kw_only, metadata=metadata)


@dataclass_transform(eq_default=False, kw_only_default=True, field_specifiers=(parameter,))
def parametrized(cls: type[T_]) -> type[T_]:
    """Give a class the ``__init__`` of its parameters, and describe them in its docstring.

    ``%(parameters)s`` in it become all parameters, ``%(attributes)s`` what all estimators learn. What the class
    itself declares comes first, then what its bases do.
    """
    made = dataclasses.dataclass(eq=False, repr=False, match_args=False, kw_only=True)(cls)
    _refuse_unknown(made)
    if made.__doc__:  # not under python -OO
        document = inspect.cleandoc(made.__doc__)
        document = document.replace("%(parameters)s", _described(made))
        made.__doc__ = document.replace("%(attributes)s", _LEARNT)
    return made


def _refuse_unknown(cls: Any) -> None:
    """Let the ``__init__`` of a class say which parameter may have been meant by one that it has not."""
    init, names = cls.__init__, [field.name for field in dataclasses.fields(cls)]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        for name in given:
            if name not in names:
                more = (
                    _elsewhere(name)
                    or did_you_mean(name, names)
                    or "; help() of it describes those that it has"
                )
                raise TypeError(f"{type(self).__name__} has no parameter {name!r}{more}")
        init(self, *args, **given)

    cls.__init__ = __init__


def _elsewhere(name: str) -> str:
    """The parameter that others call so; nothing where none is."""
    if said := absent(name):
        return said
    own = {setting: parameter for parameter, setting in PARAMETERS.items()}.get(ELSEWHERE.get(name, ""))
    return "" if own is None else f"; here it is {own}"


def _described(cls: Any) -> str:
    """All parameters as a section of a docstring has them."""
    homes = [vars(base).get("__annotations__", {}) for base in cls.__mro__]

    def nearest(field: dataclasses.Field[Any]) -> int:
        return next(depth for depth, names in enumerate(homes) if field.name in names)

    ordered = sorted(dataclasses.fields(cls), key=lambda field: (field.kw_only, nearest(field)))
    return "\n".join(
        f"{field.name} : {field.type}, default {field.default!r}\n"
        + _paragraph(f"{_doc(cls, field.name)}{_range(field)}")
        for field in ordered
    )


def _doc(cls: Any, name: str) -> str:
    """What the nearest class that says something of a parameter says of it."""
    declared = (vars(base).get("__dataclass_fields__", {}).get(name) for base in cls.__mro__)
    words = (field.metadata["doc"] for field in declared if field is not None and "doc" in field.metadata)
    return str(next(words))


def _range(field: dataclasses.Field[Any]) -> str:
    """What numbers a parameter may be; words, and what is no setting of pipelines, its own text says."""
    allowed = catalogue()[PARAMETERS[field.name]].allowed if field.name in PARAMETERS else ""
    if "number" not in allowed:
        return ""
    if "str" not in str(field.type):
        allowed = allowed.removesuffix(' or "auto"')
    none = " or None" if "None" in str(field.type) else ""
    return f" May be {allowed.replace(chr(34), chr(39))}{none}."


def _paragraph(words: str) -> str:
    indent = " " * 4
    return textwrap.fill(
        words, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def choices(table: Any, setting: str) -> str:
    """What a setting of a pipeline may be."""
    annotation = table.model_fields[setting].annotation
    literals = annotation if get_origin(annotation) is Literal else get_args(annotation)[0]  # or None
    return either(get_args(literals))


@parametrized
class Parameters:
    """What every estimator can be told."""

    hidden_layer_sizes: int | tuple[int, ...] = parameter(
        "Widths d_1 … d_{L−1} of the hidden layers.", default=(100,), kw_only=False
    )
    activation: str | tuple[str, ...] = parameter(
        f"{either(ACTIVATIONS)}; one for all hidden layers, or one for each.", default="relu", kw_only=False
    )
    penalty: str = parameter(
        f"How the constraints z_i = W_i φ(z_{{i−1}}) + b_i are relaxed: {choices(SolverTable, 'penalty')}.",
        default="l2",
    )
    mu: float | tuple[float, ...] | Mapping[str, float] | str = parameter(
        "Weight of the penalty, of all layers or of each; 'auto' is exact constraints for K-FAC steps.",
        default="auto",
    )
    ridge: float | str = parameter(
        "λ of λ Σ_i ‖[W_i b_i]‖² beside the sum of all losses (scikit-learn's ``alpha`` is 2 λ). Small data sets need "
        f"it, large ones hardly notice. 'auto' is {KINDS['classifier'].ridge:g} for classifiers and regressors, "
        f"{KINDS['recurrent_classifier'].ridge:g} for sequences, {KINDS['autoencoder'].ridge:g} for auto-encoders, and "
        f"{RIDGE_OF_Z:g} for schedules other than 'kfac'.",
        default="auto",
    )
    proximal: float | None = parameter(
        "ρ of the steps relative to the mean diagonal of a Gram matrix; None follows from the network and the group.",
        default=None,
    )
    weight_decay: float | None = parameter(
        "δ of K-FAC steps: α δ of all weights but the last layer's is taken from them in a step, against noise that is "
        "fitted. None is 0.15 times the root of how many unknowns there are for each target number, at most 0.2 (of "
        "squared error 0.6 and 0.8, and it falls as the loss does; of auto-encoders 0.05, 0.2), and 0 for sequences.",
        default=None,
    )
    schedule: str = parameter(
        f"How sweeps over the chunks go: {choices(TrainingTable, 'schedule')}; "
        "'auto' are K-FAC steps for 'l2', and windows elsewhere.",
        default="auto",
    )
    max_sweeps: float | None = parameter(
        "Passes over the samples, at most; None are 20 for K-FAC steps, or as many as 300 steps take.",
        default=30,
    )
    early_stopping: bool = parameter(
        "Hold `validation_fraction` of the samples out (at random, of every class its share), stop on their loss and "
        "keep the model that was best on them. Otherwise the same goes by the loss of the samples trained on, and the "
        "ridge.",
        default=False,
    )
    validation_fraction: float = parameter(
        "Share of samples held out if `early_stopping`: a number above 0 and below 1.", default=0.1
    )
    n_iter_no_change: int | None = parameter(
        "Training stops when the loss has not improved by `tol` (relatively) in so many records; None never stops it. "
        "Records are a sweep apart, or eight steps where a sweep has fewer, and closer at first.",
        default=10,
    )
    tol: float = parameter("Relative improvement of the best loss that counts.", default=1e-3)
    warm_start: bool = parameter(
        "Whether another `fit` begins with the weights of the last one. Only weights are taken over.",
        default=False,
    )
    chunk_rows: int | None = parameter(
        "Rows in a chunk of the temporary store, of which each is a task; None is about 8 MiB, and of small data sets "
        "2,000 rows.",
        default=None,
    )
    group_chunks: int | None = parameter(
        "Chunks that make a step; None is as many as hold about 2,000 samples (or 1,000 sequences) for K-FAC steps, "
        "one at least, more on many workers, and 1 elsewhere.",
        default=None,
    )
    max_staleness: int = parameter(
        "How many groups may be under way at once (K-FAC); above 0 results depend on timing.", default=0
    )
    standardize: str = parameter(
        "What is shifted and divided by its mean and deviation while training goes on: "
        f"{choices(NetworkTable, 'standardize')}. `coefs_`, predictions and losses are those for samples as they are. "
        "'auto' takes features of very different scale or far from 0, which pixels are not, and real targets far from "
        "0 or 1 in size; of auto-encoders all features by the same number. `ridge` and `mu` go by what is "
        "standardized. `partial_fit` never does it.",
        default="auto",
    )
    dtype: str = parameter(
        f"In which is computed, and what samples and targets are read in: 'auto', {choices(NetworkTable, 'dtype')}; "
        "'auto' is float32 for samples of float32, and float64 elsewhere, as in scikit-learn; `partial_fit` goes on in "
        "what it began with.",
        default="auto",
    )
    random_state: int | np.random.RandomState | None = parameter(
        "Seed of the first weights, the order of chunks and the samples held out.", default=None
    )
    scheduler: str | None = parameter(
        "Where is trained: None is the Dask client that is active (``Client(...)``, ``client.as_current()``), or else "
        "threads of this process, as also for samples of at most 1,048,576 numbers (rows × features), for which a "
        "cluster takes longer; 'cluster' is the active client whatever the size, 'threads' is always this process; "
        "otherwise the address of a scheduler.",
        default=None,
    )
    workers: int | None = parameter(
        "Threads of this process; None is one for each core, or one if there is but one chunk. Weights do not depend "
        "on it.",
        default=None,
    )
    temporary_folder: str | os.PathLike[str] | None = parameter(
        "Where the store and the run are while `fit` goes on, and which the workers of a cluster have to see; None is "
        "Dask's ``temporary-directory``, or else the system's.",
        default=None,
    )
    settings: Mapping[str, Any] | None = parameter(
        "More settings as in a pipeline file, such as ``{'solver.output_damping': 0.01}``; these go first.",
        default=None,
    )
    verbose: bool = parameter("Print a line for every record.", default=False)


@parametrized
class OutputParameters:
    """What is told about real outputs."""

    output_activation: str | None = parameter(
        "None is 'identity' for the squared loss; 'sigmoid' for targets (of auto-encoders, samples) in [0, 1].",
        default=None,
    )


@parametrized
class LossParameters(OutputParameters):
    """What is told about real outputs of networks that are no recurrent ones."""

    loss: str = parameter(
        "'squared' is ½ ‖ŷ − y‖²; 'binary_cross_entropy', with sigmoid outputs, the cross entropy for targets (of "
        "auto-encoders, samples) in [0, 1].",
        default="squared",
    )
