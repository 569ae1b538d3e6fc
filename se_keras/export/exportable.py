"""Checks that a model can be exported. Each error names the layer that prevents it, and a workaround."""

from __future__ import annotations

import re
from typing import Any

import keras

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


def check_graph(model: keras.Model, what: str) -> None:
    """Rejects models that do not record their graph.

    Args:
        model: The model.
        what: The export to write, such as "A .tflite file".

    Raises:
        ValueError: A subclassed model, or a sequential one that has no input shape yet.
    """
    if not is_functional(model):
        name = getattr(model, "name", None)
        raise ValueError(
            f"{what} needs a functional model, or a sequential model with an input shape; received "
            f"{type(model).__name__} {name!r}, which has no known input shape or overrides `call`. Use keras.Input and "
            "keras.Model(inputs, outputs), or model.build(input_shape) for a sequential model."
        )


def check_numbers_only(model: keras.Model, what: str) -> None:
    """Rejects models that do not record their graph, take text, or use a vocabulary.

    Args:
        model: The model.
        what: The export to write, such as "A .tflite file".

    Raises:
        ValueError: As in `check_graph`; or the model takes text or uses a vocabulary; the message names the layer or
            input.
    """
    check_graph(model, what)
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


def check_one_input(model: keras.Model) -> None:
    """Rejects models with several inputs.

    Args:
        model: A functional model.

    Raises:
        ValueError: It has another number of inputs than one.
    """
    if len(model.inputs) != 1:
        raise ValueError(f"A model to export must have one input; {model.name!r} has {len(model.inputs)}.")


def layers_in_text(model: keras.Model, text: str) -> str:
    """Names the layers of a model that a converter's message mentions.

    Args:
        model: The converted model.
        text: The message, with operation names such as "model/layer/operation".

    Returns:
        The end of a sentence; "" if no layer is mentioned.
    """
    found = [shown(layer) for layer in model.layers if re.search(rf"/{re.escape(layer.name)}(_\d+)?/", text)]
    return f", needed in {', '.join(found)}" if found else ""
