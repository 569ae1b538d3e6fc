"""The layer types that surgery distinguishes, and facts determined from a layer's type and arguments."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import layers

from se_keras.layers import BatchNormalization, GroupedConv2D


def _known(*names: str) -> tuple[Any, ...]:
    """Returns the layer types that this version of Keras has."""
    return tuple(getattr(layers, name) for name in names if hasattr(layers, name))


def _ranks(name: str) -> tuple[Any, ...]:
    """Returns the layer types for sequences, images, and volumes: "Conv{}" for Conv1D, Conv2D, and Conv3D."""
    return _known(*(name.format(f"{dimensions}D") for dimensions in (1, 2, 3)))


PLAIN_CONVOLUTIONS = _ranks("Conv{}")
SEPARABLE = _ranks("SeparableConv{}")
DEPTHWISE = _ranks("DepthwiseConv{}")
TRANSPOSED = _ranks("Conv{}Transpose")
CONVOLUTIONS = (*PLAIN_CONVOLUTIONS, GroupedConv2D, *SEPARABLE, *DEPTHWISE, *TRANSPOSED)
LEARNED = (*CONVOLUTIONS, layers.Dense, layers.EinsumDense)
BATCH_NORMS = (layers.BatchNormalization, BatchNormalization)
NORMS = (*BATCH_NORMS, layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization)
RECTIFIERS = (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
PADDINGS = _ranks("ZeroPadding{}")
CROPPINGS = _ranks("Cropping{}")
AVERAGE_POOLINGS = _ranks("AveragePooling{}")
MAX_POOLINGS = _ranks("MaxPooling{}")
UPSAMPLINGS = (*_ranks("UpSampling{}"), layers.Resizing, *TRANSPOSED)
SPATIAL_DROPOUTS = _ranks("SpatialDropout{}")

# By the rank of a map: sequences, images, volumes.
CONVOLUTION_OF_RANK = dict(zip((3, 4, 5), PLAIN_CONVOLUTIONS, strict=True))
DEPTHWISE_OF_RANK = dict(zip((3, 4), DEPTHWISE, strict=True))
GLOBAL_AVERAGE_OF_RANK = dict(zip((3, 4, 5), _ranks("GlobalAveragePooling{}"), strict=True))

# An affine map per channel passes through these unchanged: they pick, repeat, or average positions.
TRANSPARENT = (layers.Identity, *CROPPINGS, layers.UpSampling1D, layers.UpSampling3D)
# A factor per channel passes through these unchanged: one of any sign, or a nonnegative one.
LINEAR = (
    *TRANSPARENT,
    *PADDINGS,
    *AVERAGE_POOLINGS,
    layers.UpSampling2D,
    layers.Dropout,
    *SPATIAL_DROPOUTS,
)
POSITIVELY_HOMOGENEOUS = (*MAX_POOLINGS, layers.LeakyReLU, layers.PReLU)

# These pass their input through at inference.
TRAINING_ONLY = (
    *_known("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
    *_known("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast"),
    *_known("RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale"),
    *_known("RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation"),
    *_known("RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
    *SPATIAL_DROPOUTS,
)

# By name, because keras.applications does not export some of them: layers that only drop, scale, or pass through, which
# a position at the end of a branch precedes; and additions, of which InceptionResNetV2 has its own.
AT_BRANCH_END = ("Dropout", "DropPath", "Identity", "LayerScale", "LearnableAffine", "Rescaling", "StochasticDepth")
ADDITIONS = ("Add", "CustomScaleLayer")
ENLARGING = ("Resize", "DepthToSpace")
# Operations that may take some of a map's channels; and those between the activation of gates and their product.
SLICING = ("ArraySplit", "GetItem", "Lambda", "Slice", "Split")
RESIZING = ("Resize", "Resizing", "UpSampling1D", "UpSampling2D", "UpSampling3D")


def is_learned(layer: Any) -> bool:
    """Returns whether a layer has kernels."""
    return isinstance(layer, LEARNED)


def is_depthwise(layer: Any) -> bool:
    """Returns whether a convolution mixes no channels."""
    if isinstance(layer, DEPTHWISE):
        return True
    return isinstance(layer, CONVOLUTIONS) and getattr(layer, "groups", 1) > 1 and layer.kernel.shape[-2] == 1


def is_pointwise(layer: Any, rank: int) -> bool:
    """Returns whether a layer mixes channels but not positions: a 1x1 convolution, or a dense layer on a map.

    Args:
        layer: The layer.
        rank: The rank of its input.
    """
    if isinstance(layer, layers.Dense):
        return rank > 2
    return isinstance(layer, PLAIN_CONVOLUTIONS) and set(layer.kernel_size) == {1}


def is_linear(activation: Any) -> bool:
    """Returns whether an activation passes its input through."""
    return activation in (None, keras.activations.linear)


def activation_of(operation: Any) -> str:
    """Returns the name of the activation that a layer applies, "linear" for none."""
    if isinstance(operation, RECTIFIERS):
        return "relu"
    if not isinstance(operation, layers.Layer):
        return type(operation).__name__.lower()
    activation = getattr(operation, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", "custom")


@functools.cache
def _activation_names() -> frozenset[str]:
    """Returns the names of Keras' activations, to recognize operations that are not layers."""
    return frozenset(name for name in dir(keras.activations) if name.islower() and not name.startswith("_"))


def is_norm_or_activation(operation: Any) -> bool:
    """Returns whether an operation on one tensor only normalizes, or only applies a function to each element."""
    if isinstance(operation, (*NORMS, *RECTIFIERS, layers.Activation)):
        return not is_passing(operation)
    return not isinstance(operation, layers.Layer) and type(operation).__name__.lower() in _activation_names()


def is_passing(operation: Any) -> bool:
    """Returns whether an operation only drops, scales, or passes through its input."""
    if isinstance(operation, layers.Activation):
        return operation.activation is keras.activations.linear
    return any(name in type(operation).__name__ for name in AT_BRANCH_END)


def channel_axis(layer: Any, rank: int) -> int:
    """Returns the axis of a layer's channels, from its data format."""
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else rank - 1


def quantization_of(layer: Any) -> str | None:
    """Returns the mode in which Keras quantized a layer, such as "int8", or None if the layer is not quantized."""
    return getattr(layer, "quantization_mode", None)


def why_weights_are_fixed(layer: Any) -> str:
    """Returns the reason why no factor can be multiplied into the weights of a layer, or ""."""
    if quantization_of(layer):
        return f"{layer.name!r} is quantized"
    return f"{layer.name!r} has LoRA weights" if getattr(layer, "lora_enabled", False) else ""
