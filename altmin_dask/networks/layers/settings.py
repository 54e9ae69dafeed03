"""What is said of a layer before there are data: a small table of settings for each kind, which checks itself.

The table is a frozen dataclass beside its layer; its fields are all that settings can say of the kind. Its `build`
makes the layer, once it is known what shape the values of a sample have below it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Self

from altmin_dask.errors import ConfigError, did_you_mean
from altmin_dask.networks.activations import Activation, get_activation
from altmin_dask.networks.layers.layer import Layer


@dataclass(frozen=True, kw_only=True)
class LayerSettings(ABC):
    """The settings of one layer, checked.

    Attributes
    ----------
    activation : str or None
        φ of its outputs; None is for what the network says of all its layers.
    """

    layer: ClassVar[type[Layer]]
    """What these are the settings of."""

    activation: str | None = None

    def __post_init__(self) -> None:
        if self.activation is not None:
            get_activation(self.activation)

    @abstractmethod
    def build(self, in_shape: Sequence[int], activation: Activation) -> Layer:
        """Make the layer for values of a shape, `out_shape` of the layer below or that of a sample, and its φ.

        Raises
        ------
        DataError, ConfigError
            If the settings do not fit the shape.
        """

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> Self:
        """Make settings of a table that came from a file.

        Raises
        ------
        ConfigError
            If a key is unknown or missing, or a value is wrong.
        """
        names = [field.name for field in fields(cls)]
        if unknown := [str(name) for name in settings if name not in names]:
            raise ConfigError(
                f"{unknown[0]} is not a setting of a {cls.layer.kind} layer; it has {', '.join(names)}"
                f"{did_you_mean(unknown[0], names)}"
            )
        required = [
            field.name
            for field in fields(cls)
            if field.default is MISSING and field.default_factory is MISSING
        ]
        if missing := [name for name in required if name not in settings]:
            raise ConfigError(f"a {cls.layer.kind} layer needs {missing[0]}, which is missing")
        return cls(**settings)

    def describe(self) -> dict[str, Any]:
        """The settings as a JSON-ready table, `kind` included."""
        return {"kind": self.layer.kind, **asdict(self)}


def whole(value: Any, name: str, least: int = 1) -> int:
    """A whole number, checked.

    Raises
    ------
    ConfigError
        If it is none, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r}; write a whole number of at least {least}")
    return value


def choice(value: Any, name: str, *choices: str) -> None:
    """Refuse what is none of some words.

    Raises
    ------
    ConfigError
        If it is none.
    """
    if value not in choices:
        raise ConfigError(
            f"{name} is {value!r}; choose one of {', '.join(choices)}{did_you_mean(value, choices)}"
        )
