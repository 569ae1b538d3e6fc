"""Construction of layers under a dtype policy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def dtype_policy(dtype: Any) -> Iterator[None]:
    """Sets Keras' global dtype policy inside a `with` block.

    Args:
        dtype: A policy or its name. None changes nothing.

    Yields:
        Once, under the policy.
    """
    before = keras.config.dtype_policy()
    try:
        if dtype is not None:
            keras.config.set_dtype_policy(keras.dtype_policies.get(dtype))
        yield
    finally:
        keras.config.set_dtype_policy(before)
