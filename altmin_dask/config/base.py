"""What all tables of a pipeline have in common: unknown keys are refused, numbers are never guessed from strings."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of a pipeline; what stands under a setting is what help and the documentation say of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


ONE, EACH, TABLE, WORD = FORMS = ("<one>", "<each>", "<table>", "<word>")
"""Forms of a setting that may be a value, values, a table or a word."""


def listed(value: Any) -> Any:
    """One number in place of a list of them, as one writes the width of a single layer."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def form_of(value: Any) -> str:
    """Which form a setting was given in, so that only what is wrong with that form is reported."""
    if isinstance(value, list | tuple):
        return EACH
    return TABLE if isinstance(value, dict | BaseModel) else ONE
