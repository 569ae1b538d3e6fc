"""Global averages in stages, in which no intermediate sum exceeds half precision.

A mean over 56x56 positions adds up 3,136 values before it divides; on a GPU that adds in float16, the
sum overflows at a mean of 21. An average over 7x7 windows of averages over 8x8 windows is the same number.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import rewritten_inside
from se_keras.surgery.hoist import expanded, new_call

LARGEST_WINDOW = 8


def staged(graph: Graph, names: Collection[str] | None = None) -> Graph:
    """Splits means over a whole map into exact average pools with small windows.

    Args:
        graph: The graph.
        names: Names of the `SqueezeExcite` and `GlobalAveragePooling2D` layers to split. None
            selects all. Squeezes other than the mean, and maps of at most 8x8 or of unknown size,
            stay as they are.

    Returns:
        A new graph with the same outputs up to rounding.
    """
    graph = rewritten_inside(graph, lambda inner, _: staged(inner, names))
    graph, pools = expand_blocks(graph, names)
    return stage_pools(graph, None if names is None else {*names, *pools})


def expand_blocks(graph: Graph, names: Collection[str] | None = None) -> tuple[Graph, list[str]]:
    """Expands SE blocks on images with a mean squeeze into ordinary layers.

    Args:
        graph: The graph.
        names: Names of the blocks. None selects all.

    Returns:
        The new graph, and the names of its pooling layers that now compute the squeeze.
    """
    replacements, pools = {}, []
    for call in graph.calls:
        block = call.operation
        if type(block) is not SqueezeExcite or (names is not None and block.name not in names):
            continue
        if block.squeeze == "avg" and len(call.inputs[0].shape) == 4 and not graph.takes_mask(call):
            kernel = float64(block.reduce_kernel)
            bias = float64(block.reduce_bias) if block.use_bias else np.zeros(kernel.shape[1])
            replacements[call] = expanded(call, call.inputs[0], kernel, bias)
            pools.append(replacements[call][0].name)
    return graph.rewritten(replacements, {}), pools


def stage_pools(graph: Graph, names: Collection[str] | None = None) -> Graph:
    """Splits global average pools of a fixed size into average pools with small windows that divide it exactly.

    Args:
        graph: The graph.
        names: Names of the `GlobalAveragePooling2D` layers to split. None selects all.

    Returns:
        The new graph. Pools over maps of at most 8x8, or of an unknown or prime size, stay as they are.
    """
    replacements = {}
    for call in graph.calls:
        layer = call.operation
        if type(layer) is not layers.GlobalAveragePooling2D or (names is not None and layer.name not in names):
            continue
        first = layer.data_format == "channels_first"
        height, width = call.inputs[0].shape[2:4] if first else call.inputs[0].shape[1:3]
        if height is None or width is None:
            continue
        windows = pool_windows(height, width)
        if len(windows) > 1:
            replacements[call] = _staged(call, windows)
    return graph.rewritten(replacements, {})


def pool_windows(height: int, width: int) -> list[tuple[int, int]]:
    """Returns the window sizes of successive average pools that compute the mean over a map.

    Args:
        height: Height of the map, at least 1.
        width: Width of the map, at least 1.

    Returns:
        The (height, width) of each window, each at most 8 where the divisors of the size allow it.

    Example:

    >>> pool_windows(56, 56)
    [(8, 8), (7, 7)]
    """
    rows, columns = _factors(height), _factors(width)
    count = max(len(rows), len(columns))
    pad = [1] * count
    return list(zip((rows + pad)[:count], (columns + pad)[:count], strict=True))


def _factors(size: int) -> list[int]:
    factors = []
    while size > LARGEST_WINDOW:
        divisor = next((d for d in range(LARGEST_WINDOW, 1, -1) if size % d == 0), size)
        factors.append(divisor)
        size //= divisor
    return [*factors, size] if size > 1 or not factors else factors


def _staged(call: Call, windows: list[tuple[int, int]]) -> list[Call]:
    layer = call.operation
    common = {"data_format": layer.data_format, "dtype": layer.dtype_policy}
    calls, tensor = [], call.inputs[0]
    for number, window in enumerate(windows[:-1], start=1):
        pool = layers.AveragePooling2D(window, window, name=f"{layer.name}_stage{number}", **common)
        calls.append(new_call(pool, tensor))
        tensor = calls[-1].outputs[0]
    last = layers.GlobalAveragePooling2D(keepdims=layer.keepdims, name=layer.name, **common)
    return [*calls, Call(last, (tensor,), {}, call.outputs, is_new=True)]
