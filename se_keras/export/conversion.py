"""Errors of converters, in one form for all formats: one line with the format and, if it is known, the layer."""

from __future__ import annotations

import contextlib
import pathlib
import re
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from se_keras.surgery.layer_facts import shown

PYTHON_FUNCTIONS = ("EagerPyFunc", "PyFunc", "PyFuncStateless")
_LONGEST = 300
_PASSED_ON = (ImportError, MemoryError, OSError)  # as are this package's own errors
_MARKED = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)  # by Keras, within the arguments of the layer
_CALLING = re.compile(r"Exception encountered when calling (\w+)\.call\(\)")  # added by Keras
_PLACES = re.compile(r"^(Exception from|Check) .*\n", re.MULTILINE)  # in the source code of OpenVINO


@contextlib.contextmanager
def converting(model: keras.Model, what: str) -> Iterator[None]:
    """Turns exceptions of converters, and of layers that they call, into one that names the format and the layer.

    Args:
        model: The converted model.
        what: The format, as the start of a sentence.

    Yields:
        Nothing.

    Raises:
        ValueError: An exception was raised, which is its cause. Errors of this package, of files, of memory, and of
            missing packages pass unchanged.
    """
    try:
        yield
    except _PASSED_ON:
        raise
    except Exception as error:
        if _is_own(error):
            raise
        layer = _failing_layer(error)
        kind = _CALLING.match(str(error))
        failing = shown(layer) if layer is not None else kind and f"a layer of class {kind[1]}"
        where = f"{failing} fails with " if failing else ""
        remedy = (
            "To find the layer that fails, export parts of the model, such as keras.Model(model.input, layer.output)."
            if not failing
            else "Replace the layer, or make a keras.Model without it."
        )
        if keras.backend.backend() != "tensorflow":
            remedy += (
                " Or export on TensorFlow (KERAS_BACKEND=tensorflow), where a .keras file of the model loads, too."
            )
        raise ValueError(
            f"{what} cannot be written from {model.name!r}: {where}{type(error).__name__}: {_one_line(error)}. {remedy}"
        ) from error


def lacking(runtime: str, operations: Iterable[str], model: keras.Model, text: str) -> ValueError:
    """Returns the error for operations that a format does not have.

    Args:
        runtime: What lacks them, as the start of a sentence, such as "ONNX".
        operations: Their names.
        model: The converted model.
        text: Names of nodes with these operations, or a message that contains them, such as "model/layer/operation".

    Returns:
        An error for the caller to raise; it names the layers that `text` mentions.
    """
    layers = [shown(layer) for layer in model.layers if re.search(rf"/{re.escape(layer.name)}(_\d+)?/", text)]
    where = f", needed in {', '.join(layers)}" if layers else ""
    return ValueError(
        f"{runtime} has no operation for: {', '.join(sorted(set(operations)))}{where}. Replace the layer that uses "
        "them, or make a keras.Model that begins after it."
    )


def names_of(nodes: Iterable[Any]) -> str:
    """Returns the names of nodes of a graph as `lacking` takes them."""
    return " ".join(f"/{node.name}/" for node in nodes)


def saved_functions(folder: pathlib.Path) -> list[Any]:
    """Returns the functions in a SavedModel, which contain everything that it computes."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    return [function for graph in saved.meta_graphs for function in graph.graph_def.library.function]


def saved_nodes(folder: pathlib.Path, operations: Iterable[str]) -> list[Any]:
    """Returns the nodes in a SavedModel with one of these operations."""
    chosen = frozenset(operations)
    return [node for function in saved_functions(folder) for node in function.node_def if node.op in chosen]


def _is_own(error: Exception) -> bool:
    """Returns whether this package raised an error, with a message of one line that says what is wrong."""
    is_stated = isinstance(error, (ValueError, RuntimeError)) and "\n" not in str(error)
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return is_stated and frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]


def _failing_layer(error: Exception) -> keras.layers.Layer | None:
    """Returns the innermost user-defined layer whose code raised an error; Keras removes its own from the traceback."""
    callers = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    layers = [one for one in callers if isinstance(one, keras.layers.Layer) and not isinstance(one, keras.Model)]
    return layers[-1] if layers else None


def _one_line(error: Exception) -> str:
    text = str(error.args[0] if len(error.args) == 1 else error)  # a KeyError shows its message with quotes
    marked = _MARKED.search(text)
    text = _PLACES.sub("", marked[1] if marked else text)
    return textwrap.shorten(text, _LONGEST, placeholder=" ...").rstrip(".")
