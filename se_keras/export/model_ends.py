"""The inputs and outputs of a Keras model, as its exports name them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.export.image_rows import RowNormalization
from se_keras.export.inputs import IMAGE, PIXELS, TOKENS, VALUES, Feed, Input
from se_keras.layers import ImagePreprocessing
from se_keras.preprocessing import stored_preprocessing
from se_keras.scores import Scores
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.graph import read_nested_graph
from se_keras.surgery.layer_facts import is_functional, layers_inside
from se_keras.surgery.layer_types import TRAINING_ONLY
from se_keras.surgery.outputs import all_scores

ONLY_OUTPUT = "output_0"
_AUTOMATIC = re.compile(r"(keras_tensor|input_layer)(_\d+)?")  # names that depend on what was built before
# Operations that change no values at inference, or only their order and number.
_PASSING = ("Cast", "Identity", "Permute", "Reshape", "ZeroPadding1D", "ZeroPadding2D")
_PASSING_IMAGES = ("CenterCrop", "GetItem", "RandomCrop", "Resizing", "Stack")
_ARITHMETIC = ("Add", "Divide", "Multiply", "Subtract", "TrueDivide")
_SCALES = 1 / 300, 1 / 50  # of pixels up to 255; smaller ones are of 12 or 16 bits
_MEANS = 2.0, 255.0


def inputs_of(model: keras.Model) -> tuple[Input, ...]:
    """Returns the records of a model's inputs.

    Args:
        model: A model whose inputs are known.

    Returns:
        One record per input, in the order of `model.inputs`. A single input of images is named "images"; others have
        the names of their `keras.Input`, or the keys of a dictionary of inputs. The range is that of the layers that
        read the input: 0 to 255 if they normalize pixels, and the rows of an embedding.
    """
    names = _names(_structure(model), [tensor.name for tensor in model.inputs], "input")
    if len(model.inputs) == 1:
        names = ["images" if _is_image(model.inputs[0]) else "inputs" if names == ["input_0"] else names[0]]
    graph = read_nested_graph(model) if is_functional(model) else None
    pixels = stored_preprocessing(model) is not None
    return tuple(_input(tensor, name, graph, pixels) for tensor, name in zip(model.inputs, names, strict=True))


def output_scores(model: keras.Model) -> dict[str, Scores]:
    """Returns the kind of each output by its name: "output_0" for a single one, else as for inputs.

    Args:
        model: A model whose outputs are known.

    Returns:
        The scores, in the order of `model.outputs`.

    Raises:
        ValueError: The model ends in a softmax over one output.
    """
    scores = all_scores(model)
    if len(scores) == 1:
        return {ONLY_OUTPUT: scores[0]}
    graph = read_nested_graph(model)
    calls = [graph.producer(tensor) for tensor in model.outputs]
    own = [tensor.name if call is None else call.name for call, tensor in zip(calls, model.outputs, strict=True)]
    return dict(zip(_names(graph.outputs, own, "output"), scores, strict=True))


def main_scores(scores: dict[str, Scores]) -> Scores:
    """Returns the scores that class names belong to.

    Args:
        scores: As from `output_scores`.

    Returns:
        Those of a single output, or of the only classifier among several; otherwise kind "output", without classes.
    """
    found = list(scores.values())
    if len(found) > 1:
        found = [one for one in found if one.kind != "output"]
    return found[0] if len(found) == 1 else Scores("output", 0)


def packed(model: keras.Model, values: Sequence[Any]) -> Any:
    """Returns values, given in the order of a model's inputs, in the structure that the model is called with."""
    return keras.tree.pack_sequence_as(_structure(model), list(values))


def answers_of(model: keras.Model, feed: Feed) -> list[np.ndarray]:
    """Calls a model for inference.

    Args:
        model: The model.
        feed: Its inputs, in their order; the names do not matter.

    Returns:
        Its outputs, in their order.
    """
    answers = model(packed(model, list(feed.values())), training=False)
    return [np.asarray(keras.ops.convert_to_numpy(answer)) for answer in keras.tree.flatten(answers)]


def _structure(model: keras.Model) -> Any:
    if isinstance(model, keras.Sequential) or not is_functional(model):
        return model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return read_nested_graph(model).inputs


def _names(structure: Any, own: Sequence[str], word: str) -> list[str]:
    """Returns one unique name per tensor, in characters that all formats allow."""
    is_dictionary = isinstance(structure, dict) and not any(isinstance(one, dict) for one in structure.values())
    keys = keras.tree.flatten({key: key for key in structure}) if is_dictionary else list(own)
    given = keys if len(keys) == len(own) else list(own)
    names: list[str] = []
    for number, name in enumerate(given):
        plain = f"{word}_{number}" if _AUTOMATIC.fullmatch(name) else re.sub(r"\W", "_", name)
        names.append(plain if plain not in names else f"{plain}_{number}")
    return names


def _is_image(tensor: Any) -> bool:
    return len(tensor.shape) == 4 and keras.backend.standardize_dtype(tensor.dtype) != "string"


def _input(tensor: Any, name: str, graph: Graph | None, pixels: bool) -> Input:
    shape, dtype = tuple(tensor.shape[1:]), keras.backend.standardize_dtype(tensor.dtype)
    readers = [] if graph is None else list(_readers(graph, tensor, _is_image(tensor)))
    rows = [layer.input_dim for layer in _embeddings([call.operation for call in readers], dtype)]
    if rows:
        return Input(name, shape, dtype, TOKENS, 0.0, float(min(rows) - 1))
    if not _is_image(tensor):
        return Input(name, shape, dtype, VALUES)
    low, high = PIXELS if pixels or dtype == "uint8" else _image_range(readers)
    return Input(name, shape, dtype, IMAGE, low, high)


def _readers(graph: Graph, tensor: Any, is_image: bool) -> Iterator[Call]:
    """Yields the calls that read a tensor, looking into nested models and past those that change no values."""
    for call in dict.fromkeys(graph.takers(tensor)):
        if is_functional(call.operation):
            inner = read_nested_graph(call.operation)
            for place in (place for place, one in enumerate(call.inputs) if one is tensor):
                yield from _readers(inner, keras.tree.flatten(inner.inputs)[place], is_image)
        elif _passes_on(call.operation, is_image):
            yield from _readers(graph, call.outputs[0], is_image)
        else:
            yield call


def _passes_on(operation: Any, is_image: bool) -> bool:
    names = (*_PASSING, *_PASSING_IMAGES) if is_image else _PASSING
    return isinstance(operation, TRAINING_ONLY) or type(operation).__name__ in names


def _embeddings(readers: Sequence[Any], dtype: str) -> Iterator[Any]:
    """Yields the embeddings that read an input; only integers are looked for inside other layers."""
    for reader in readers:
        parts = layers_inside(reader) if dtype.startswith(("int", "uint")) and hasattr(reader, "weights") else ()
        yield from (part for part in (reader, *parts) if isinstance(part, keras.layers.Embedding))


def _image_range(readers: Sequence[Call]) -> tuple[float, float] | tuple[None, None]:
    is_normalized = any(_normalizes_pixels(call.operation) or _calculates_with_pixels(call) for call in readers)
    return PIXELS if is_normalized else (None, None)


def _calculates_with_pixels(call: Call) -> bool:
    """Returns whether an operation scales or shifts by a number for pixels, as functions `preprocess_input` do."""
    kind = type(call.operation).__name__
    if isinstance(call.operation, keras.layers.Layer) or kind not in _ARITHMETIC:  # layers take only tensors
        return False
    numbers = [value for value in call.args if not keras.backend.is_keras_tensor(value)]
    if len(numbers) != 1:
        return False
    values = np.abs(keras.ops.convert_to_numpy(numbers[0]))
    if kind in ("Add", "Subtract"):
        return _is_within(values, _MEANS)
    return _is_within(values if kind == "Multiply" else 1 / np.maximum(values, 1e-9), _SCALES)


def _is_within(values: Any, limits: tuple[float, float]) -> bool:
    """Returns whether the largest of some numbers is within limits, for pixels from 0 to 255."""
    low, high = limits
    return bool(low <= np.max(np.abs(values)) <= high)


def _normalizes_pixels(reader: Any) -> bool:
    if isinstance(reader, keras.layers.Rescaling):
        return _is_within(reader.scale, _SCALES)
    if isinstance(reader, keras.layers.Normalization):
        mean = getattr(reader, "mean", None)
        return mean is not None and _is_within(keras.ops.convert_to_numpy(mean), _MEANS)
    if isinstance(reader, RowNormalization):
        return _is_within(reader.factor, _SCALES) or _is_within(reader.mean, _MEANS)
    return isinstance(reader, ImagePreprocessing)
