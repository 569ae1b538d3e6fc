"""Small networks that take something else than one image, or return more than one thing, with samples for each."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

VOCABULARY, STEPS = 50, 12


def audio() -> keras.Model:
    """A network of waveforms: one axis of positions."""
    waves = keras.Input((32, 1), name="waves")
    x = layers.Conv1D(8, 5, padding="same", use_bias=False)(waves)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same")(x)))
    return keras.Model(waves, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)), name="audio")


def text() -> keras.Model:
    """A network of token indices."""
    tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
    x = layers.Embedding(VOCABULARY, 8)(tokens)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same")(x)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same")(x)))
    return keras.Model(tokens, layers.Dense(1, activation="sigmoid")(layers.GlobalMaxPooling1D()(x)), name="text")


def image_and_table() -> keras.Model:
    """A network with two inputs, one of rank 1."""
    photo, table = keras.Input((16, 16, 3), name="photo"), keras.Input((4,), name="table")
    x = layers.Rescaling(1 / 255)(photo)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same")(x)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(4, activation="relu")(table)])
    return keras.Model([photo, table], layers.Dense(3, activation="softmax")(x), name="image_and_table")


def class_and_map() -> keras.Model:
    """A network with two outputs: a class, and a map of the input's size. It expects normalized images."""
    photo = keras.Input((16, 16, 3), name="photo")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(photo)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
    kind = layers.Dense(3, activation="softmax", name="kind")(layers.GlobalAveragePooling2D()(x))
    area = layers.Conv2D(1, 1, activation="sigmoid", name="area")(x)
    return keras.Model(photo, {"kind": kind, "area": area}, name="class_and_map")


NETWORKS = {build.__name__: build for build in (audio, text, image_and_table, class_and_map)}


def samples_for(name: str, count: int) -> dict[str, np.ndarray]:
    """Inputs by the names that exports give them."""
    rng = np.random.default_rng(1)
    normal = rng.normal(0, 1, (count, 16, 16, 3)).astype("float32")
    return {
        "audio": {"waves": rng.uniform(-1, 1, (count, 32, 1)).astype("float32")},
        "text": {"tokens": rng.integers(0, VOCABULARY, (count, STEPS)).astype("int32")},
        "image_and_table": {
            "photo": rng.integers(0, 256, (count, 16, 16, 3)).astype("float32"),
            "table": rng.normal(3, 2, (count, 4)).astype("float32"),
        },
        "class_and_map": {"images": normal},
    }[name]
