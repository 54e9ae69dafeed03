"""A trained network as an ONNX file."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from altmin_dask.data.conversion import blurred
from altmin_dask.errors import AltMinWarning, MissingError
from altmin_dask.export.files import place_for
from altmin_dask.export.layers import layers_of
from altmin_dask.networks.activations import LEAKY_SLOPE
from altmin_dask.preparation import Scaling
from altmin_dask.storage.atomic import write_bytes
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import PRODUCER

OPSET, IR_VERSION = 17, 8
"""Old enough for the runtimes of the last years, and all that is needed here."""
_OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": LEAKY_SLOPE}),
    "softplus": ("Softplus", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "identity": ("Identity", {}),
}


def write_onnx(model: Model, file: str | os.PathLike[str], classes: Sequence[Any] | None = None) -> Path:
    """Write an ONNX file of float32.

    Its input ``x`` are raw samples ``(rows, *sample_shape)``, which it scales itself as the training data were; of a
    table with text, numbers stand for the values of a column already. Its outputs are ``output`` (rows, d_L), in the
    units of the raw data, and, of a classifier, ``label`` (rows,), the index of the largest one.

    Parameters
    ----------
    model : Model
        With its weights.
    file : path
        Where to write; an exported model that is there is replaced.
    classes : sequence, optional
        Names of the classes, kept as JSON in the file's metadata ``classes``.

    Raises
    ------
    MissingError
        If the package onnx is not installed.
    ExistsError
        If there is anything else.
    ConfigError
        If the network is recurrent.

    Warns
    -----
    AltMinWarning
        If what was standardized lies closer together, for its size, than float32 tells apart.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinRegressor, write_onnx
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> model = AltMinRegressor(5, "tanh", max_sweeps=3, random_state=0).fit(x, x[:, 0]).model_
    >>> write_onnx(model, "model.onnx").stat().st_size > 100
    True
    >>> import onnxruntime
    >>> session = onnxruntime.InferenceSession("model.onnx")
    >>> session.run(["output"], {"x": x.astype(np.float32)})[0].shape
    (100, 1)
    """
    layers = layers_of(model)
    how = model.preparation
    for name, scaling in (("x", None if how is None else how.x), ("output", model.output_scaling)):
        if scaling is not None:
            _warn_of_float32(name, scaling)
    try:
        from onnx import TensorProto, checker, helper, load, numpy_helper
    except ImportError:
        raise MissingError("the package onnx is not installed; `pip install 'altmin-dask[onnx]'`") from None
    path = place_for(file, lambda there: load(there, load_external_data=False).producer_name)
    nodes, tensors = [], []

    def constant(name: str, values: Any) -> str:
        tensors.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    features = model.network.sizes[0]
    shape = constant("shape", np.array([-1, features], np.int64))
    nodes.append(helper.make_node("Reshape", ["x", shape], ["rows"]))
    values = "rows"
    if model.scale != 1:
        scale = constant("scale", np.float32(model.scale))
        nodes.append(helper.make_node("Div", [values, scale], ["scaled"]))
        values = "scaled"
    if how is not None and how.x is not None:
        shift, scale = (
            constant("x_shift", np.array(how.x.shift, np.float32)),
            constant("x_scale", np.array(how.x.scale, np.float32)),
        )
        nodes.append(helper.make_node("Sub", [values, shift], ["shifted"]))
        nodes.append(helper.make_node("Div", ["shifted", scale], ["standardized"]))
        values = "standardized"
    units = model.output_scaling
    for number, layer in enumerate(layers, 1):
        weight = constant(f"weight_{number}", layer.weight.astype(np.float32))
        bias = constant(f"bias_{number}", layer.bias.astype(np.float32))
        nodes.append(helper.make_node("Gemm", [values, weight, bias], [f"z_{number}"], transB=1))
        operator, settings = _OPERATORS[layer.activation]
        values = "output" if number == len(layers) and units is None else f"a_{number}"
        nodes.append(helper.make_node(operator, [f"z_{number}"], [values], **settings))
    if units is not None:
        shift, scale = (
            constant("shift", np.array(units.shift, np.float32)),
            constant("unit", np.array(units.scale, np.float32)),
        )
        nodes.append(helper.make_node("Mul", [values, scale], ["multiplied"]))
        nodes.append(helper.make_node("Add", ["multiplied", shift], ["output"]))
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", model.network.sizes[-1]])]
    if model.kind == "classifier":
        nodes.append(helper.make_node("ArgMax", ["output"], ["label"], axis=1, keepdims=0))
        outputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["rows"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *model.sample_shape])]
    graph = helper.make_graph(nodes, f"altmin_{model.kind}", inputs, outputs, tensors)
    content = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
    )
    if classes is not None:
        helper.set_model_props(content, {"classes": json.dumps(list(classes))})
    checker.check_model(content, full_check=True)
    write_bytes(path, content.SerializeToString())
    return Path(file)


def _warn_of_float32(name: str, scaling: Scaling) -> None:
    shift, scale = np.array(scaling.shift), np.array(scaling.scale)
    if what := blurred(shift - scale, shift + scale, name):
        warnings.warn(f"{what}, of which the ONNX file is made", AltMinWarning, stacklevel=3)
