"""A trained network as an ONNX file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from altmin_dask.errors import MissingError
from altmin_dask.export.files import place_for
from altmin_dask.export.outputs import output_onnx, warn_of_float32
from altmin_dask.preparation import Scaling
from altmin_dask.storage.atomic import write_bytes
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import PRODUCER

OPSET, IR_VERSION = 17, 8
"""Old enough for the runtimes of the last years, and all that is needed here."""


class Graph:
    """Nodes and constants of a file that is being made; each gets a name of its own.

    Attributes
    ----------
    nodes, tensors : list
        As `onnx.helper.make_graph` takes them.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def node(
        self, operator: str, inputs: Sequence[str], *, name: str | None = None, **attributes: Any
    ) -> str:
        """Add a node with one output, and name it."""
        from onnx import helper

        name = name or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, *, name: str | None = None) -> str:
        """Add a constant, whole numbers as int64 and others as float32, and name it."""
        from onnx import numpy_helper

        array = np.asarray(values)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        name = name or f"constant_{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def scaled(self, values: str, scaling: Scaling) -> str:
        """Add (values − shift) / scale, and name it."""
        shifted = self.node("Sub", [values, self.constant(np.array(scaling.shift, np.float32))])
        return self.node("Div", [shifted, self.constant(np.array(scaling.scale, np.float32))])

    def unscaled(self, values: str, scaling: Scaling) -> str:
        """Undo `scaled`."""
        product = self.node("Mul", [values, self.constant(np.array(scaling.scale, np.float32))])
        return self.node("Add", [product, self.constant(np.array(scaling.shift, np.float32))])


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
        Names of the classes, if the model does not have them, kept as JSON in the file's metadata ``classes``, beside
        the names of the numbers in a row of ``x``, ``inputs``, and what is done to raw samples, ``scale`` and
        ``preparation``.

    Raises
    ------
    MissingError
        If the package onnx is not installed.
    ExistsError
        If there is anything else.
    ConfigError
        If the network has layers that are not exported: recurrent ones.

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
    warn_of_float32(model, "the ONNX file")
    try:
        from onnx import checker, load
    except ImportError:
        raise MissingError("the package onnx is not installed; `pip install 'altmin-dask[onnx]'`") from None
    content = _content_of(model, classes)
    path = place_for(file, lambda there: load(there, load_external_data=False).producer_name)
    checker.check_model(content, full_check=True)
    write_bytes(path, content.SerializeToString())
    return Path(file)


def _content_of(model: Model, classes: Sequence[Any] | None) -> Any:
    """The file as an `onnx.ModelProto`."""
    from onnx import TensorProto, helper

    graph, info = _graph_of(model), helper.make_tensor_value_info
    inputs = [info("x", TensorProto.FLOAT, ["rows", *model.sample_shape])]
    outputs = [info("output", TensorProto.FLOAT, ["rows", model.network.widths[-1]])]
    if model.kind == "classifier":
        graph.node("ArgMax", ["output"], name="label", axis=1, keepdims=0)
        outputs.append(info("label", TensorProto.INT64, ["rows"]))
    content = helper.make_model(
        helper.make_graph(graph.nodes, f"altmin_{model.kind}", inputs, outputs, graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=PRODUCER,
    )
    how = model.preparation
    if classes is None and how is not None:
        classes = how.called
    more = {"scale": json.dumps(model.scale)}
    if how is not None:
        more["preparation"] = json.dumps(how.to_json())
        more["inputs"] = json.dumps(how.names)
    if classes is not None:
        more["classes"] = json.dumps(list(classes))
    helper.set_model_props(content, more)
    return content


def _graph_of(model: Model) -> Graph:
    """Nodes from raw samples ``x`` to ``output``."""
    graph, network, how = Graph(), model.network, model.preparation
    values = graph.node("Reshape", ["x", graph.constant([-1, network.sizes[0]])])
    if model.scale != 1:
        values = graph.node("Div", [values, graph.constant(float(model.scale))])
    if how is not None and how.x is not None:
        values = graph.scaled(values, how.x)
    for layer, w in zip(network.layers, model.weights, strict=True):
        values = layer.activation.onnx(graph, layer.to_onnx(w, graph, values))
    values = output_onnx(network, graph, values)
    if model.output_scaling is not None:
        values = graph.unscaled(values, model.output_scaling)
    graph.node("Identity", [values], name="output")
    return graph
