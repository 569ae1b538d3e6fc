"""Which models can be exported at all; each refusal names the layer that stands in the way, and a way around it."""

from __future__ import annotations

import re

import keras

from se_keras.surgery.layer_facts import is_functional, layers_inside, shown


def check_graph(model: keras.Model, what: str) -> None:
    """Refuses models that do not record what they compute.

    Args:
        model: The model.
        what: What is to be written, e.g. "A .tflite file".

    Raises:
        ValueError: A subclassed model, or a sequential one that has no input shape yet.
    """
    if not is_functional(model):
        name = getattr(model, "name", None)
        raise ValueError(
            f"{what} is written of a functional model, or of a sequential one with an input shape; received "
            f"{type(model).__name__} {name!r}, which has no input of known shape or computes in a `call` of its own. "
            "Use keras.Input and keras.Model(inputs, outputs); for a sequential one, model.build(input_shape)."
        )


def check_numbers_only(model: keras.Model, what: str) -> None:
    """Refuses models that take text, or that look something up in a vocabulary.

    Args:
        model: A functional model.
        what: What is to be written, e.g. "A .tflite file".

    Raises:
        ValueError: The model is one of these; the layer is named.
    """
    lookups = [layer for layer in layers_inside(model) if hasattr(layer, "save_assets")]
    if lookups:
        raise ValueError(
            f"{what} holds no vocabulary, which {shown(lookups[0])} of {model.name!r} has. Make a keras.Model that "
            "begins behind this layer, and apply it before; or write a SavedModel, which holds it."
        )
    texts = [tensor for tensor in model.inputs if keras.backend.standardize_dtype(tensor.dtype) == "string"]
    if texts:
        raise ValueError(
            f"{what} takes numbers; the input {texts[0].name!r} of {model.name!r} is text. Make a keras.Model that "
            "begins behind what reads the text; or write a SavedModel, which takes text."
        )


def layers_in_text(model: keras.Model, text: str) -> str:
    """Names the layers of a model that a converter's text mentions.

    Args:
        model: The model that was converted.
        text: With the names of operations, "model/layer/operation".

    Returns:
        The end of a sentence; "" where none is mentioned.
    """
    found = [shown(layer) for layer in model.layers if re.search(rf"/{re.escape(layer.name)}(_\d+)?/", text)]
    return f", needed in {', '.join(found)}" if found else ""
