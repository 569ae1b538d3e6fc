"""The layers between the last feature map and the predictions."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers


def output_dtype() -> str | None:
    """Returns the dtype of a network's outputs: "float32" under a half-precision policy, else None (the policy's)."""
    return "float32" if keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16") else None


def average_head(x: Any, *, classes: int, activation: Any, dropout: float) -> Any:
    """Applies global average pooling, dropout, and a dense layer. Works at any input size.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        classes: Number of classes.
        activation: Activation of the predictions. None returns logits.
        dropout: Fraction of the pooled features to drop in training.

    Returns:
        Tensor of shape (batch, classes), in float32 even under a half-precision policy.
    """
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    return classifier(x, classes=classes, activation=activation, dropout=dropout)


def vgg_head(x: Any, *, classes: int, activation: Any, dropout: float) -> Any:
    """Applies VGG's two dense layers of 4096 to the flattened map, at one input size; otherwise as `average_head`."""
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        x = layers.Dense(4096, activation="relu", kernel_initializer="he_uniform", name=f"fc{number}")(x)
        if number == 1 and dropout:
            x = layers.Dropout(dropout, name="fc1_dropout")(x)
    x = layers.Identity(name="pooled")(x)
    return classifier(x, classes=classes, activation=activation, dropout=dropout)


def classifier(x: Any, *, classes: int, activation: Any, dropout: float) -> Any:
    """Applies dropout and a dense layer to pooled features; arguments and result as in `average_head`."""
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    x = layers.Dense(classes, dtype=output_dtype(), name="logits")(x)
    if activation is None:
        return x
    return layers.Activation(activation, dtype=output_dtype(), name="predictions")(x)
