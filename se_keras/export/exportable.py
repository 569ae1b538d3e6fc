"""Checks that a model can be exported. Each error names the layer that prevents it, and a workaround."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import keras

from se_keras.errors import one_of, refuse_tf_keras
from se_keras.surgery.layer_facts import is_functional, layers_inside, shown


def require_tensorflow(what: str) -> Any:
    """Imports TensorFlow, and checks that Keras runs on it.

    Args:
        what: The export that needs it, as the start of a sentence.

    Returns:
        The module `tensorflow`.

    Raises:
        RuntimeError: Keras runs on another backend.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"{what} requires the TensorFlow backend; Keras runs on {backend!r}. Save the model as .keras, and export "
            "it in a process with KERAS_BACKEND=tensorflow."
        )
    import tensorflow

    return tensorflow


@dataclasses.dataclass(frozen=True)
class Format:
    """What a format of exports requires.

    Args:
        what: An export in it, as the start of a sentence, such as "A .tflite file".
        suffix: The end of its name; "" for a folder.
        dtypes: The precisions that it can be written in.
        takes_text: Whether it can contain vocabularies, and take text.
        needs_tensorflow: Whether only the TensorFlow backend writes it.
    """

    what: str
    suffix: str = ""
    dtypes: tuple[str, ...] = ("fp32",)
    takes_text: bool = False
    needs_tensorflow: bool = True


def check_export(model: keras.Model, path: str | os.PathLike, form: Format, *, dtype: str = "fp32") -> None:
    """Rejects what cannot be written in a format, before any work is done.

    Args:
        model: The model.
        path: The file or folder to write.
        form: The format.
        dtype: The precision.

    Raises:
        RuntimeError: Keras does not run on the backend that the format needs.
        ValueError: `path` has another suffix; the precision is unknown; the model is subclassed, or has no input shape
            yet; an output has no axis of samples; or the model takes text or uses a vocabulary, and the format does
            not. The message names the layer, input, or output.
    """
    check_suffix(path, form.suffix)
    if form.needs_tensorflow:
        require_tensorflow(form.what)
    one_of("dtype", dtype, form.dtypes)
    _check_graph(model, form.what)
    _check_rows(model, form.what)
    if not form.takes_text:
        _check_numbers_only(model, form.what)


def check_suffix(path: str | os.PathLike, suffix: str) -> None:
    """Rejects a path with another suffix; "" allows any."""
    if suffix and pathlib.Path(path).suffix != suffix:
        raise ValueError(f"`path` must end in {suffix}; received {os.fspath(path)!r}.")


def _check_graph(model: keras.Model, what: str) -> None:
    refuse_tf_keras(model)
    if not is_functional(model):
        name = getattr(model, "name", None)
        raise ValueError(
            f"{what} needs a functional model, or a sequential model with an input shape; received "
            f"{type(model).__name__} {name!r}, which has no known input shape or overrides `call`. Use keras.Input and "
            "keras.Model(inputs, outputs), or model.build(input_shape) for a sequential model."
        )


def _check_rows(model: keras.Model, what: str) -> None:
    numbers = [number for number, tensor in enumerate(model.outputs) if not len(tensor.shape)]
    if numbers:
        raise ValueError(
            f"{what} needs outputs with one row per sample; output {numbers[0]} of {model.name!r} is one number for "
            "all samples. Do not reduce over the first axis: pass, for example, axis=(1, 2)."
        )


def _check_numbers_only(model: keras.Model, what: str) -> None:
    lookups = [layer for layer in layers_inside(model) if hasattr(layer, "save_assets")]
    if lookups:
        raise ValueError(
            f"{what} cannot contain a vocabulary; {shown(lookups[0])} of {model.name!r} has one. Make a keras.Model "
            "that begins after this layer, and apply the layer beforehand; or write a SavedModel, which can contain it."
        )
    texts = [tensor for tensor in model.inputs if keras.backend.standardize_dtype(tensor.dtype) == "string"]
    if texts:
        raise ValueError(
            f"{what} takes numbers; the input {texts[0].name!r} of {model.name!r} is text. Make a keras.Model that "
            "begins after the layers that read the text; or write a SavedModel, which takes text."
        )


def graph_alone(model: keras.Model) -> keras.Model:
    """Returns a model without what its class does around the graph in `predict`, which no file contains.

    Args:
        model: Any model, such as a KerasHub task, whose `predict` resizes photos or suppresses overlapping boxes.

    Returns:
        A plain functional model with the same layers; the model itself if its class changes nothing or it has no graph.
    """
    methods = ("predict_on_batch", "predict_step")
    is_plain = all(getattr(type(model), name) is getattr(keras.Model, name) for name in methods)
    return model if is_plain or not is_functional(model) else keras.Model(model.input, model.output, name=model.name)
