"""What transformers give back: as `set_output` asks, but of lazy samples nothing is computed for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import dask.array as da
from sklearn import get_config

from altmin_dask.estimators.input import is_lazy

C_ = TypeVar("C_", bound=type)


def lazy_stays_lazy(kind: C_) -> C_:
    """Let a transformer give dask arrays for lazy samples, or dask frames where `set_output` asks for frames.

    scikit-learn wraps the methods of every transformer, and would make frames in memory.
    """
    for name in ("transform", "fit_transform"):
        setattr(kind, name, _unless_lazy(getattr(kind, name)))
    return kind


def _unless_lazy(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(wrapped, "__wrapped__", wrapped)

    @functools.wraps(wrapped)
    def method(self: Any, X: Any, *arguments: Any, **options: Any) -> Any:
        if not is_lazy(X):
            return wrapped(self, X, *arguments, **options)
        found = plain(self, X, *arguments, **options)
        return (
            _framed(self, found, X)
            if isinstance(found, da.Array) and _asked_for(self) != "default"
            else found
        )

    return method


def _asked_for(estimator: Any) -> str:
    own = getattr(estimator, "_sklearn_output_config", {})
    return str(own.get("transform", get_config()["transform_output"]))


def _framed(estimator: Any, values: da.Array, X: Any) -> Any:
    """A frame of dask, whose rows are named as those of X, if that is one: what is put side by side goes by them."""
    import dask.dataframe as dd

    names = [str(name) for name in estimator.get_feature_names_out()]
    return dd.from_dask_array(values, columns=names, index=X.index if hasattr(X, "npartitions") else None)
