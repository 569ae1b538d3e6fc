"""GroupedConv2D compared with keras.layers.Conv2D(groups=...) on the CPU: forward pass and training step.

    python benchmarks/grouped_conv.py

The shapes are those of the 3x3 convolutions of SE-ResNeXt-50 and SENet-154. Both layers run inside
a `tf.function`; on TensorFlow, Keras' own layer adds an XLA-compiled function to it.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from timing import interleaved, report, summary

from se_keras.layers import GroupedConv2D

SHAPES = {
    "SE-ResNeXt-50 stage 2: 56x56x128, 32 groups": (56, 128, 128, 32),
    "SE-ResNeXt-50 stage 4: 14x14x512, 32 groups": (14, 512, 512, 32),
    "SENet-154 stage 4: 14x14, 512 to 1024, 64 groups": (14, 512, 1024, 64),
}
BATCH = 8


def contest(size: int, channels: int, filters: int, groups: int) -> dict[str, dict[str, float]]:
    images = tf.random.normal((BATCH, size, size, channels))
    forward, training = {}, {}
    for name, layer_type in {"Keras": keras.layers.Conv2D, "se_keras": GroupedConv2D}.items():
        layer = layer_type(filters, 3, groups=groups, padding="same", use_bias=False)
        layer.build(images.shape)

        @tf.function
        def run(x, layer=layer):
            return layer(x)

        @tf.function
        def step(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer(x) ** 2)
            return tape.gradient(loss, [x, layer.kernel.value])

        forward[name] = lambda run=run: run(images).numpy()
        training[name] = lambda step=step: [gradient.numpy() for gradient in step(images)]
    rows = {f"forward, {k}": v for k, v in summary(interleaved(forward, rounds=9), reference="se_keras").items()}
    trained = summary(interleaved(training, rounds=3), reference="se_keras")
    return rows | {f"training step, {k}": v for k, v in trained.items()}


def main() -> int:
    return report("grouped_conv", {title: contest(*shape) for title, shape in SHAPES.items()})


if __name__ == "__main__":
    sys.exit(main())
