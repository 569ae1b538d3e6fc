"""The facts that an export stores about itself for the programs that use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras

from se_keras.class_names import class_names_for
from se_keras.export.inputs import IMAGE, Input
from se_keras.export.model_ends import inputs_of, main_scores, output_scores
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing
from se_keras.scores import Scores


def input_facts(inputs: Sequence[Input], preprocessing: Preprocessing | None) -> dict[str, Any] | list[dict[str, Any]]:
    """Describes the inputs of a model.

    Args:
        inputs: The inputs.
        preprocessing: What the model includes, if anything.

    Returns:
        For a single input of images, its height, width, and range (None if the model does not state it), and if the
        model contains its preprocessing, the crop and interpolation of photos. For another single input, its name,
        shape, dtype, and range. For several, a list of these.
    """
    if len(inputs) > 1:
        return [one.facts() for one in inputs]
    (only,) = inputs
    if only.kind != IMAGE:
        return only.facts()
    facts = {"height": only.shape[0], "width": only.shape[1], "range": only.facts().get("range")}
    if preprocessing is None:
        return facts
    return {**facts, "crop_pct": preprocessing.crop, "interpolation": preprocessing.interpolation}


def output_facts(scores: dict[str, Scores]) -> str | dict[str, str]:
    """Returns the kind of a single output, a key of `se_keras.scores.SIGNATURES`; for several, a dictionary by name."""
    kinds = {name: one.kind for name, one in scores.items()}
    return kinds if len(kinds) > 1 else next(iter(kinds.values()))


def stored_properties(model: keras.Model, dtype: str, class_names: Sequence[str] | None) -> dict[str, str]:
    """Returns what an `.onnx` or `.xml` file stores about itself.

    Args:
        model: The model.
        dtype: Precision of the file.
        class_names: Class names in the order of the outputs. None: the model's own.

    Returns:
        Text by name: "model", "dtype", "output" (a key of `se_keras.scores.SIGNATURES`; for several, JSON by name),
        "input" (JSON, as in `input_facts`), and "class_names" (a JSON list) if there are any.

    Raises:
        ValueError: `class_names` do not fit the outputs.
    """
    scores = output_scores(model)
    facts, kinds = input_facts(inputs_of(model), stored_preprocessing(model)), output_facts(scores)
    output = kinds if isinstance(kinds, str) else json.dumps(kinds)
    properties = {"model": model.name, "dtype": dtype, "output": output, "input": json.dumps(facts)}
    names = class_names_for(model, class_names, main_scores(scores).classes)
    if names is not None:
        properties["class_names"] = json.dumps(names)
    return properties
