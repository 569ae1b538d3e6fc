"""A digest that identifies a model by what it computes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras
import numpy as np

_PASSING = ("shared_object_id", "compile_config", "build_config", "trainable")


def fingerprint(model: keras.Model) -> str:
    """Returns a digest of the layers and weights of a model, whether it is compiled, frozen, or neither.

    Args:
        model: Any model that can be saved.

    Returns:
        64 hexadecimal digits, the same for a model and its saved copy.
    """
    digest = hashlib.sha256(json.dumps(_lasting(json.loads(model.to_json())), sort_keys=True).encode())
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _lasting(config: Any) -> Any:
    """Returns a configuration without memory addresses, and without what concerns only training."""
    if isinstance(config, dict):
        return {key: _lasting(value) for key, value in config.items() if key not in _PASSING}
    return [_lasting(value) for value in config] if isinstance(config, list) else config
