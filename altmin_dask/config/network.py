"""The table `[network]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    model_validator,
)

from altmin_dask.config.base import EACH, ONE, Count, Table, form_of, listed
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.layers import LayerSettings, read_settings
from altmin_dask.networks.losses import LOSSES

ActivationName = Literal[*ACTIVATIONS]  # type: ignore[valid-type]
LossName = Literal[*LOSSES]  # type: ignore[valid-type]
Layer = Annotated[
    LayerSettings,
    PlainValidator(read_settings, json_schema_input_type=dict[str, Any]),
    PlainSerializer(lambda layer: layer.describe(), return_type=dict[str, Any]),
]
"""A table of any kind of layer: what it may hold is declared beside the layer."""
Widths = Annotated[
    tuple[Count, ...],
    Field(strict=False),
    BeforeValidator(listed, json_schema_input_type=Count | tuple[Count, ...]),
]
OutputName = Literal[*{**ACTIVATIONS, "softmax": None}]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Kind:
    """What a kind of network is for.

    Attributes
    ----------
    target : {"inputs", "labels", "real"}
        What its outputs are compared with.
    ridge : float
        λ by which K-FAC steps hold the weights, unless another is given.
    recurrent : bool
        Whether samples are sequences.
    """

    target: Literal["inputs", "labels", "real"]
    ridge: float
    recurrent: bool = False


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "autoencoder": Kind("inputs", ridge=0.005),
        "classifier": Kind("labels", ridge=1.0),  # row 46 of benchmarks/LOG.md
        "regressor": Kind("real", ridge=1.0),
        "recurrent_classifier": Kind("labels", ridge=0.3, recurrent=True),
        "recurrent_regressor": Kind("real", ridge=0.3, recurrent=True),
    }
)
"""Every kind, by the name that settings and models give it."""
KindName = Literal[*KINDS]  # type: ignore[valid-type]


class NetworkTable(Table):
    """`[network]`: a chain or a recurrent network; input and output widths follow from the data."""

    kind: KindName
    """What the network is for; what its outputs are compared with, and whether samples are sequences, follows."""
    hidden_layer_sizes: Widths = (100,)
    """Units of each hidden layer, from the inputs on; of recurrent networks, of the recurrent layers. One number is a
    single layer."""
    layers: Annotated[tuple[Layer, ...], Field(strict=False)] | None = None
    """All hidden layers, one table for each, in place of hidden_layer_sizes: `{ kind = "dense", units = 64 }`, of
    sequences with `reads` = "all", "each" (every step by itself) or "last"; `{ kind = "convolution", channels = 8,
    kernel_size = 3, stride = 1, padding = 0 }`, of which the last three are numbers or pairs of them, and may be left
    out, over pictures (height, width) or (height, width, channels), without pooling; `{ kind = "recurrent",
    units = 64 }`, with `recurrent_init` = "auto", "orthogonal" or "identity". Each takes an `activation` of its own.
    Messages count them from 0."""
    activation: (
        Annotated[
            Annotated[ActivationName, Tag(ONE)]
            | Annotated[tuple[ActivationName, ...], Field(strict=False), Tag(EACH)],
            Discriminator(form_of),
        ]
        | None
    ) = None
    """One for all hidden layers, or one for each; by default relu, tanh in recurrent networks, and sigmoid in
    auto-encoders."""
    output_activation: OutputName | None = None
    """Of the outputs; by default the loss's own (identity, sigmoid or softmax), and sigmoid for auto-encoders by the
    squared loss, whose samples are then in [0, 1]."""
    loss: LossName | None = None
    """What is minimised; by default cross_entropy for classifiers, and squared, which is ½ ‖ŷ − y‖², elsewhere."""
    classes: Annotated[int, Field(ge=2)] | None = None
    """How many classes a classifier tells apart; by default as many as there are different labels for training."""
    dtype: Literal["float32", "float64"] = "float32"
    """In which is computed, and in which raw sources are ingested; a store has a dtype of its own (ingest --dtype)."""
    standardize: Literal["auto", "none", "inputs", "targets", "both"] = "auto"
    """What is shifted and divided by its mean and deviation as training reads it. The model has that in its weights: it
    reads samples as they are, and losses are in their units; ridge and mu go by what is standardized. "auto" takes
    inputs whose columns are of very different scale or lie far from 0, which pixels do not, and targets that are far
    from 0 or 1 in size. Of auto-encoders, which give back what they read, all are divided by the same number, if
    outputs are the identity: see also data.standardize."""
    initialization: Literal["auto", "random", "whitened", "layerwise"] = "auto"
    """Glorot or He by activation; or a first layer whitened, and an output bias set, from the first samples; or every
    hidden layer trained by itself as a shallow auto-encoder of what is below. "auto" whitens auto-encoders of one
    hidden layer, which begin close to principal components, and is random elsewhere."""
    head_layer_sizes: Widths = ()
    """Hidden layers on top of the recurrent ones."""
    steps: Count | None = None
    """Time steps of a sample, where x is (samples, values); by default x is (samples, steps, features)."""
    loss_at: Literal["auto", "last", "every"] | None = None
    """Whether recurrent networks have a target at the last step of a sequence, or at every step; "auto", which they
    have by default, goes by the shape of y: labels (samples, steps), or numbers (samples, steps, outputs), are one
    for each step."""
    recurrent_initialization: Literal["auto", "orthogonal", "identity"] | None = None
    """What V_i are at first; "auto", the default, is the identity for rectifiers and orthogonal elsewhere."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> NetworkTable:
        if self.layers is not None:
            for name in ("hidden_layer_sizes", "head_layer_sizes", "recurrent_initialization"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"network.layers names all hidden layers; leave network.{name} out")
        if self.standardize not in ("auto", "none") and self.target == "inputs":
            raise ValueError(
                f"network.standardize = {self.standardize!r} is for networks with targets, and an auto-encoder gives "
                "back what it reads; write 'auto' or 'none', and see data.standardize"
            )
        if self.standardize in ("targets", "both") and self.target == "labels":
            raise ValueError(
                f"network.standardize = {self.standardize!r}: labels are no numbers to standardize; write 'inputs'"
            )
        if self.recurrent:
            if self.initialization in ("whitened", "layerwise"):
                raise ValueError(
                    f"network.initialization = {self.initialization!r} is for chains; leave it out, and see "
                    "network.recurrent_initialization"
                )
            if not self.hidden_layers:
                raise ValueError(
                    "network.hidden_layer_sizes is empty; give a recurrent network one layer or more"
                )
            return self
        if self.initialization == "whitened" and self._begins_recurrent:
            raise ValueError(
                "network.initialization = 'whitened' is for a first layer whose inputs are the samples, and a "
                "recurrent one reads its own values, too; write 'random'"
            )
        for name in ("head_layer_sizes", "steps", "loss_at", "recurrent_initialization"):
            if getattr(self, name):
                raise ValueError(f"network.{name} is for recurrent networks; network.kind is {self.kind!r}")
        return self

    @property
    def recurrent(self) -> bool:
        """Whether samples are sequences."""
        return KINDS[self.kind].recurrent

    @property
    def target(self) -> str:
        """What outputs are compared with."""
        return KINDS[self.kind].target

    @property
    def hidden_activation(self) -> str | list[str]:
        """One activation, or one for each hidden layer."""
        if self.activation is None:
            return "tanh" if self.recurrent else "sigmoid" if self.target == "inputs" else "relu"
        return self.activation if isinstance(self.activation, str) else list(self.activation)

    @property
    def start(self) -> Literal["random", "whitened", "layerwise"]:
        """The initialization, "auto" resolved."""
        if self.initialization != "auto":
            return self.initialization
        chain = self.kind == "autoencoder" and not self._begins_recurrent
        return "whitened" if chain and self.hidden_layers == 1 else "random"

    @property
    def _begins_recurrent(self) -> bool:
        first = self.layers[0].layer if self.layers else None
        return self.recurrent or (first is not None and first.recurrent)

    @property
    def hidden_layers(self) -> int:
        """How many there are."""
        short = len(self.hidden_layer_sizes) + len(self.head_layer_sizes)
        return short if self.layers is None else len(self.layers)
