"""What is said of a layer before there are data: a small table of settings for each kind, which checks itself.

The table is a frozen dataclass beside its layer; its fields are all that settings files, model files and `altmin plan`
know of the kind. Its `build` makes the layer, once it is known what a sample looks like below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar, Self

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import get_activation


@dataclass(frozen=True, kw_only=True)
class LayerSettings:
    """The settings of one layer.

    Attributes
    ----------
    kind : str
        The name of its kind, as the registry has it.
    activation : str or None
        φ of its outputs; None is for what the network says of all its layers.
    """

    kind: ClassVar[str]
    activation: str | None = None

    def __post_init__(self) -> None:
        if self.activation is not None:
            get_activation(self.activation)

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
            raise ConfigError(f"{unknown[0]} is not a setting of a {cls.kind} layer; it has {', '.join(names)}")
        required = [
            field.name
            for field in fields(cls)
            if field.default is MISSING and field.default_factory is MISSING
        ]
        if missing := [name for name in required if name not in settings]:
            raise ConfigError(f"a {cls.kind} layer needs {missing[0]}, which is missing")
        return cls(**settings)

    def describe(self) -> dict[str, Any]:
        """The settings as a JSON-ready table, `kind` included."""
        return {"kind": self.kind, **asdict(self)}


def read_layer(settings: Any, kinds: Mapping[str, type[LayerSettings]]) -> LayerSettings:
    """Make settings of any kind; settings that are made are taken as they are.

    Raises
    ------
    ConfigError
        If it is no table, its kind is missing or unknown, or `LayerSettings.read` refuses it.
    """
    if isinstance(settings, LayerSettings):
        return settings
    if not isinstance(settings, Mapping):
        raise ConfigError('a layer is a table such as {kind = "dense", units = 64}')
    others = dict(settings)
    kind = others.pop("kind", None)
    if not isinstance(kind, str) or kind not in kinds:
        said = "a layer without a kind" if kind is None else f"kind {kind!r} of a layer is unknown"
        raise ConfigError(f"{said}; choose one of {', '.join(kinds)}")
    return kinds[kind].read(others)


def whole(value: Any, name: str, least: int = 1) -> int:
    """A whole number, checked.

    Raises
    ------
    ConfigError
        If it is none, or too small.
    """
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} is {value!r}; write a whole number of at least {least}")
    return value


def pair(value: Any, name: str, least: int = 1) -> tuple[int, int]:
    """A whole number for each of two axes, of one number or two.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    each = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(each) != 2:
        raise ConfigError(f"{name} is {value!r}; write one number, or two for height and width")
    first, second = (whole(number, name, least) for number in each)
    return first, second
