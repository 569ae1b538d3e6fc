"""Networks of few units: every kind of layer of a real one, and little to build, convert and run."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from se_keras.models.inverted import InvertedSpec
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS


def shortened(identifier: str, *, first: int = 1, **options: object) -> keras.Model:
    """The network with one unit a stage, or `first` units in the first one; of inverted blocks, one a row.

    A network whose table counts neither stays as it is.
    """
    network = NETWORKS[identifier]
    numbers = _depth(network.spec, first)
    spec = dataclasses.replace(network.spec, **numbers) if numbers else network.spec
    return assemble("short", dataclasses.replace(network, spec=spec), Options(**options))


def _depth(spec: Any, first: int) -> dict[str, Any]:
    if isinstance(spec, InvertedSpec):
        return {"depth": 0.0}
    blocks = getattr(spec, "num_blocks", None)
    if blocks is None:
        return {}
    return {"num_blocks": first if isinstance(blocks, int) else (first, *(1,) * (len(blocks) - 1))}


def answers(model: keras.Model, images: np.ndarray) -> Any:
    """What `model.predict` gives, without compiling it first, which takes longer than a few images."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


def images_for(model: keras.Model, count: int = 3) -> np.ndarray:
    """Images of the model's size, 0 to 255, the same in every call."""
    shape = (count, *model.input_shape[1:])
    return (np.arange(np.prod(shape)) * 7919 % 256).reshape(shape).astype("float32")
