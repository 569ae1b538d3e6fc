"""What an export stores about itself for the programs that use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras

from se_keras.class_names import class_names_for
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing
from se_keras.surgery.outputs import scores_of


def image_facts(shape: Sequence[int | None], preprocessing: Preprocessing | None) -> dict[str, Any]:
    """Describes how photos become an input of a model.

    Args:
        shape: Height, width, and channels of the input.
        preprocessing: What the model includes, if anything.

    Returns:
        Height, width, crop, and interpolation; {} if the input is not one of images.
    """
    if len(shape) != 3:
        return {}
    record = preprocessing or Preprocessing()
    return {"height": shape[0], "width": shape[1], "crop_pct": record.crop, "interpolation": record.interpolation}


def stored_properties(model: keras.Model, dtype: str, class_names: Sequence[str] | None) -> dict[str, str]:
    """Returns what an `.onnx` or `.xml` file stores about itself.

    Args:
        model: The model, with one input.
        dtype: Precision of the file.
        class_names: Class names in the order of the outputs. None: the model's own.

    Returns:
        Text by name: "model", "dtype", "output" (a key of `se_keras.scores.SIGNATURES`), "input" (JSON: size, crop,
        interpolation, and range), and "class_names" (a JSON list) if there are any.

    Raises:
        ValueError: `class_names` do not fit the outputs.
    """
    scores, own = scores_of(model), stored_preprocessing(model)
    image = image_facts(model.inputs[0].shape[1:], own) | {"range": None if own is None else [0, 255]}
    properties = {"model": model.name, "dtype": dtype, "output": scores.kind, "input": json.dumps(image)}
    names = class_names_for(model, class_names, scores.classes)
    if names is not None:
        properties["class_names"] = json.dumps(names)
    return properties
