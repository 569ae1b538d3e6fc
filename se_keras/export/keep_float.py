"""Choice of the tensors of an integer `.tflite` file that stay in float: by default, by name, or by measurement.

An operation loses most where its output becomes an integer, so those that read this output must stay in float as well.
"""

from __future__ import annotations

import math
import pathlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from se_keras.export.agreement import LIMITS, compare
from se_keras.export.first_layers import LAYERS, Kind, Step, first_layers
from se_keras.export.inputs import Feed, Samples, few_of
from se_keras.export.inspect_tflite import RIM, Operation, TFLiteGraph
from se_keras.export.layer_loss import layer_losses
from se_keras.export.tflite_runtime import TFLiteRunner

AUTO = "auto"
KINDS = {
    **dict.fromkeys(("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), Kind.CONVOLUTION),
    "FULLY_CONNECTED": Kind.DENSE,
    "HARD_SWISH": Kind.SWISH,
    "LOGISTIC": Kind.SIGMOID,
    "MUL": Kind.PRODUCT,
    **dict.fromkeys(
        ("ADD", "SUB", "PAD", "PADV2", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE"),
        Kind.SIMPLE,
    ),
}
FASTER_IN_FLOAT = ("HARD_SWISH",)
"""LiteRT's fast kernels for CPUs, XNNPACK, lack the 8-bit form, so the file would be split into pieces, with slow
kernels between them. They have the float form, and the conversions around it."""
LARGEST_SHARE = 0.25  # of the tensors: with more in float, a file with 16-bit weights is better
LOSS_IMAGES = 32
DENSE_IMAGES = 8

Quantize = Callable[[Sequence[str]], bytes]


def names_to_keep(graph: TFLiteGraph, keep_float: Sequence[str] | None) -> list[str]:
    """Finds the operations that stay in float: those of `_kept_anyway`, and those that compute or read kept tensors.

    Args:
        graph: The structure of the float `.tflite` file that is quantized.
        keep_float: None, or names of layers or tensors, where an empty sequence leaves nothing in float.

    Returns:
        The names of the tensors that these operations compute.

    Raises:
        ValueError: No operation has one of the names.
    """
    if keep_float is None:
        return _kept_anyway(graph)
    return _kept_anyway(graph) + _with_readers(graph, _named(graph, keep_float)) if keep_float else []


def fewest_to_keep(content: bytes, graph: TFLiteGraph, batches: Sequence[Feed], quantize: Quantize) -> list[str]:
    """Finds as few operations as possible to keep in float beside those of `_kept_anyway`.

    They are none if the integer file agrees with the float file on the images.

    Args:
        content: The content of the float `.tflite` file that is quantized.
        graph: Its structure.
        batches: The inputs, in batches of the file's size.
        quantize: A function from names of tensors to the content of a quantized file in which the operations that
            compute them stay in float.

    Returns:
        As `names_to_keep`.
    """
    anyway = _kept_anyway(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "float.tflite")
        path.write_bytes(content)
        return anyway + _measured(path, graph, _joined(batches), lambda names: quantize([*anyway, *names]))


def _kept_anyway(graph: TFLiteGraph) -> list[str]:
    """Returns the first layers of a network with swishes, and the operations of `FASTER_IN_FLOAT`."""
    fast = (one.outputs[0].name for one in graph.operations if one.name in FASTER_IN_FLOAT)
    return list(dict.fromkeys((*first_layers(_steps(graph)), *fast)))


def _steps(graph: TFLiteGraph) -> list[Step]:
    operations = [one for one in graph.operations if one.outputs]
    computed = {tensor.name: one.outputs[0].name for one in operations for tensor in one.outputs}

    def weights(one: Operation) -> int:
        return math.prod(one.inputs[1].shape) if KINDS.get(one.name) in LAYERS and one.inputs[1].constant else 0

    return [
        Step(
            one.outputs[0].name,
            KINDS.get(one.name, Kind.OTHER),
            weights(one),
            tuple(computed.get(tensor.name, tensor.name) for tensor in one.inputs if not tensor.constant),
        )
        for one in operations
    ]


def _with_readers(graph: TFLiteGraph, tensors: Sequence[str]) -> list[str]:
    chosen = set(tensors)
    touching = (one for one in graph.operations if chosen & {tensor.name for tensor in (*one.inputs, *one.outputs)})
    return [one.outputs[0].name for one in touching if one.name not in RIM]


def _named(graph: TFLiteGraph, names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        matching = [one.outputs[0].name for one in graph.operations if name in _names_of(one.outputs[0].name)]
        if not matching:
            raise ValueError(
                f"`keep_float` must name layers or tensors of the deployed model; it has none named {name!r}. "
                "`verify` with layers=True lists the names."
            )
        found += matching
    return sorted(set(found))


def _names_of(tensor: str) -> Iterator[str]:
    """Yields the names for a tensor: its own, the last two parts, and that of its layer; copies are numbered."""
    first = tensor.split(";")[0].split("/")
    yield from (tensor, "/".join(first[-2:]))
    for part in first[1:-1]:
        yield from (part, re.sub(r"_\d+$", "", part))


def _joined(batches: Sequence[Feed]) -> Feed:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _measured(path: pathlib.Path, graph: TFLiteGraph, feed: Feed, quantize: Quantize) -> list[str]:
    expected = _answer(path, feed)
    if expected.ndim > 2:  # maps, of which a few show the noise
        feed = few_of(feed, DENSE_IMAGES)
        expected = _answer(path, feed)
    kind = "logits" if expected.ndim == 2 and expected.shape[1] > 1 else "output"

    def failures(names: Sequence[str]) -> list[str]:
        written = path.with_name("int8.tflite")
        written.write_bytes(quantize(_with_readers(graph, names)))
        part = Samples("calibration", feed)
        found = compare(expected, _answer(written, feed), part, runtime="tflite", dtype="int8", kind=kind)
        return list(found.failures(LIMITS["int8"], judge_classes=True))

    reasons = failures([])
    if not reasons:
        return []
    names = [loss.name for loss in layer_losses(path.with_name("int8.tflite"), path, few_of(feed, LOSS_IMAGES))[0]]
    most = int(LARGEST_SHARE * len(names))
    count = _fewest(lambda count: not failures(names[:count]), most)
    if count is None:
        warnings.warn(
            f"The int8 file does not agree with the float file. {' '.join(reasons)} Not even {most} of {len(names)} "
            "tensors in float are enough, so none stays in float; consider dtype='fp16' or 'int8_weights'.",
            stacklevel=4,
        )
    return _with_readers(graph, names[: count or 0])


def _answer(path: pathlib.Path, feed: Feed) -> np.ndarray:
    runner = TFLiteRunner(path)
    return runner.run(feed)[runner.answer]


def _fewest(suffices: Callable[[int], bool], most: int) -> int | None:
    """Returns the smallest count from 1 to `most` that suffices, if larger ones do as well; None if none does."""
    enough = 1
    while not suffices(enough):
        if enough >= most:
            return None
        enough = min(2 * enough, most)
    short = enough // 2
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (short, middle) if suffices(middle) else (middle, enough)
    return enough
