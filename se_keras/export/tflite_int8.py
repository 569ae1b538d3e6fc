"""Quantization of a `.tflite` file to 8 bits, with the better of two choices of ranges."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from se_keras.export.inputs import Feed, rows_of
from se_keras.export.inspect_tflite import graph_of
from se_keras.export.keep_float import AUTO, fewest_to_keep, names_to_keep
from se_keras.export.ranges import closest, compared
from se_keras.export.tensorflow_internals import quantized_to_8_bits
from se_keras.export.tflite_ranges import Ranged
from se_keras.export.tflite_runtime import outputs_of


def quantized_file(
    ranged: Ranged, batches: Sequence[Feed], *, input_type: str, keep_float: Sequence[str] | str | None
) -> bytes:
    """Quantizes a file with the choice of ranges that `closest` makes.

    Args:
        ranged: The file.
        batches: The inputs in batches of the file's size, as in `with_ranges`.
        input_type: The dtype of inputs and outputs: "float32", "uint8", or "int8".
        keep_float: As in `export.tflite`.

    Returns:
        The content of the quantized file.
    """
    import tensorflow as tf

    outer = tf.dtypes.as_dtype(input_type)
    graph = graph_of(ranged.model)
    kept = names_to_keep(graph, None if keep_float == AUTO else keep_float)
    few = [batches[place] for place in compared(len(batches), rows_of(batches[0]))]

    def quantized(content: bytes, names: Sequence[str]) -> bytes:
        return quantized_to_8_bits(
            content, denylisted_nodes=list(names) or None, input_data_type=outer, output_data_type=outer
        )

    file = functools.cache(lambda place: quantized(ranged.content(place), kept))
    best = closest(range(len(ranged.choices)), lambda place: outputs_of(file(place), few), lambda: ranged.outputs)
    if keep_float != AUTO:
        return file(best)
    content = ranged.content(best)
    return quantized(content, fewest_to_keep(content, graph, batches, lambda names: quantized(content, names)))
