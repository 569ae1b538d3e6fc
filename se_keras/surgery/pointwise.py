"""1x1 convolutions as dense layers, which compilers for GPUs fuse with what follows."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from se_keras.surgery.calls import Graph
from se_keras.surgery.graph import build_model, new_layer, read_graph, rewritten_inside
from se_keras.surgery.layer_types import PLAIN_CONVOLUTIONS, channel_axis, why_weights_are_fixed
from se_keras.surgery.subclasses import warn_of_lost_class

KEPT_ARGUMENTS = ("activation", "use_bias", "kernel_regularizer", "bias_regularizer", "activity_regularizer", "name")


def pointwise_to_dense(model: keras.Model) -> keras.Model:
    """Rewrites the 1x1 convolutions of a model as dense layers; the outputs are the same up to rounding.

    A 1x1 convolution is a matrix product at each position, and so is a dense layer on a feature map.
    The difference is what a compiler does with it: on a GPU, XLA hands a convolution to a library,
    which can fuse neither the gates nor the addition of an SE unit, but fuses a matrix product with
    them. Use this after `deploy`, for inference on JAX, and compile the result with
    `jax.jit(lambda images: model(images, training=False))`. Exports do not need it.

    Convolutions with strides, groups, or a weight constraint, channels-first ones, and quantized ones
    stay as they are. So do those whose input may come with a mask, because a dense layer passes it on.

    Args:
        model: A functional model, or a built sequential one, with weights of any dtype. It is not
            changed and shares nothing with the result.

    Returns:
        A new functional model with the same name, inputs, and outputs; its class is as in
        `insert_squeeze_excite`. Kernels of shape (1, 1, inputs, outputs) become (inputs, outputs).

    Raises:
        ValueError: As in `deploy`.

    Example:

    >>> fast = pointwise_to_dense(SEResNet50(weights=None))
    >>> fast.get_layer("stage2_block1_conv1").kernel.shape
    (64, 64)
    """
    result = build_model(_with_dense_layers(read_graph(model)), like=model)
    warn_of_lost_class(model, result)
    return result


def _with_dense_layers(graph: Graph) -> Graph:
    graph = rewritten_inside(graph, lambda inner, _: _with_dense_layers(inner))
    dense: dict[int, Any] = {}  # by the id of the layer, which several calls may share
    masked = {id(call.operation) for call in graph.calls if graph.takes_mask(call)}
    replacements = {}
    for call in graph.calls:
        layer = call.operation
        is_plain = type(layer) in PLAIN_CONVOLUTIONS and id(layer) not in masked
        if is_plain and _is_product(layer, len(call.inputs[0].shape)):
            if id(layer) not in dense:
                dense[id(layer)] = _dense(layer, call.inputs[0].shape)
            replacements[call] = [call.of(dense[id(layer)])]
    return graph.rewritten(replacements, {})


def _is_product(layer: Any, rank: int) -> bool:
    return (
        {*layer.kernel_size, *layer.strides, layer.groups} == {1}
        and channel_axis(layer, rank) == rank - 1
        and layer.kernel_constraint is None
        and layer.bias_constraint is None
        and not why_weights_are_fixed(layer)
    )


def _dense(layer: Any, input_shape: tuple[int | None, ...]) -> layers.Dense:
    weights = [keras.ops.convert_to_numpy(variable) for variable in layer.weights]
    weights[0] = weights[0].reshape(weights[0].shape[-2:])
    arguments = {name: getattr(layer, name) for name in KEPT_ARGUMENTS}
    dense = layers.Dense(layer.filters, dtype=layer.dtype_policy, trainable=layer.trainable, **arguments)
    return new_layer(dense, input_shape, weights)
