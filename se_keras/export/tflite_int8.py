"""Quantization of a `.tflite` file to 8 bits, with the better of two choices of ranges."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from se_keras.export.inputs import Feed, rows_of
from se_keras.export.keep_float import AUTO, names_to_keep
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
    options = {"input_data_type": outer, "output_data_type": outer}

    def written(place: int, kept: Sequence[str] | str | None) -> bytes:
        content = ranged.content(place)

        def quantize(names: Sequence[str]) -> bytes:
            return quantized_to_8_bits(content, denylisted_nodes=list(names) or None, **options)

        return quantize(names_to_keep(content, kept, batches, quantize))

    first = None if keep_float == AUTO else keep_float
    few = [batches[place] for place in compared(len(batches), rows_of(batches[0]))]
    file = functools.cache(lambda place: written(place, first))
    best = closest(range(len(ranged.choices)), lambda place: outputs_of(file(place), few), lambda: ranged.outputs)
    return written(best, AUTO) if keep_float == AUTO else file(best)
