"""Kinds of layers and operations, determined from a single call."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import layers

from se_keras.surgery.fold import BATCH_NORMS
from se_keras.surgery.graph import Call

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    *DEPTHWISE,
    *TRANSPOSED,
)
LEARNED = (*CONVOLUTIONS, layers.Dense, layers.EinsumDense)
NORMS = (*BATCH_NORMS, layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
UPSAMPLINGS = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, layers.Resizing, *TRANSPOSED)

# At the end of a branch, a position precedes these, which only drop, scale, or pass through. They are given by name,
# because keras.applications does not export two of them.
AT_BRANCH_END = ("Dropout", "Identity", "LayerScale", "Rescaling", "StochasticDepth")
# keras.applications.InceptionResNetV2 has its own layer to add the scaled branch.
ADDITIONS = ("Add", "CustomScaleLayer")


def is_learned(call: Call) -> bool:
    """Returns whether a layer has kernels."""
    return isinstance(call.operation, LEARNED)


def is_depthwise(call: Call) -> bool:
    """Returns whether a convolution mixes no channels."""
    layer = call.operation
    if isinstance(layer, DEPTHWISE):
        return True
    return isinstance(layer, CONVOLUTIONS) and getattr(layer, "groups", 1) > 1 and layer.kernel.shape[-2] == 1


def is_pointwise(call: Call) -> bool:
    """Returns whether a layer mixes channels but not positions: a 1x1 convolution, or a dense layer on a map."""
    layer = call.operation
    if isinstance(layer, layers.Dense):
        return len(call.inputs[0].shape) > 2
    plain = isinstance(layer, (layers.Conv1D, layers.Conv2D, layers.Conv3D)) and not isinstance(layer, DEPTHWISE)
    return plain and set(layer.kernel_size) == {1}


def activation_of(operation: Any) -> str:
    """Returns the name of the activation that a layer applies, "linear" for none."""
    if isinstance(operation, (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)):
        return "relu"
    if not isinstance(operation, layers.Layer):
        return type(operation).__name__.lower()
    activation = getattr(operation, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", "custom")


@functools.cache
def _activation_names() -> frozenset[str]:
    """Returns the names of Keras' activations, to recognize operations that are not layers."""
    return frozenset(name for name in dir(keras.activations) if name.islower() and not name.startswith("_"))


def is_norm_or_activation(call: Call) -> bool:
    """Returns whether a call only normalizes, or only applies a function to each element."""
    operation = call.operation
    if len(call.inputs) != 1:
        return False
    if isinstance(operation, (*NORMS, *ACTIVATIONS)):
        return not is_passing(call)
    return not isinstance(operation, layers.Layer) and type(operation).__name__.lower() in _activation_names()


def is_passing(call: Call) -> bool:
    """Returns whether a call only drops, scales, or passes through its input."""
    if isinstance(call.operation, layers.Activation):
        return call.operation.activation is keras.activations.linear
    return any(name in type(call.operation).__name__ for name in AT_BRANCH_END)


def is_global_pooling(call: Call) -> bool:
    """Returns whether a call reduces a map to one number per channel."""
    name = type(call.operation).__name__
    if name.startswith("Global") and "Pooling" in name:
        return True
    return name in ("Mean", "Max") and len(call.inputs[0].shape) > 2 and call.inputs[0].shape != call.outputs[0].shape
