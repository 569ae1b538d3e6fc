"""Choice of the tensors of an integer `.tflite` file that stay in float: for speed, by name, or by measurement.

An operation loses most where its output becomes an integer, so those that read this output must stay in float as well.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import numpy as np

from se_keras.export.agreement import LIMITS
from se_keras.export.inputs import Feed, part_of
from se_keras.export.inspect_tflite import RIM, Operation, TFLiteGraph
from se_keras.export.layer_loss import layer_losses
from se_keras.export.tflite_runtime import TFLiteRunner

AUTO = "auto"
FASTER_IN_FLOAT = ("HARD_SWISH",)
"""LiteRT's fast kernels for CPUs, XNNPACK, lack the 8-bit form, so the file would be split into pieces, with slow
kernels between them. They have the float form, and the conversions around it."""
BEFORE_A_STEM = ("ADD", "MUL", "SUB", "PAD", "PADV2", "RESHAPE", "TRANSPOSE")
"""Normalization and padding, as the converter writes them."""
LARGEST_SHARE = 0.25  # of the tensors: with more in float, a file with 16-bit weights is better
LOSS_IMAGES = 32

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
    """Returns the operations of `FASTER_IN_FLOAT`, and the stem in front of each that has one.

    A stem stays in float because what it loses in 8 bits changes the outputs most, and because the file is then faster.
    """
    sources = {tensor.name: one for one in graph.operations for tensor in one.outputs}
    fast = [one for one in graph.operations if one.name in FASTER_IN_FLOAT]
    stems = (_stem(one, sources, {tensor.name for tensor in graph.inputs}) for one in fast)
    return list(dict.fromkeys(one.outputs[0].name for one in (*itertools.chain(*stems), *fast)))


def _stem(activation: Operation, sources: Mapping[str, Operation], inputs: Set[str]) -> list[Operation]:
    """Returns the convolution that an activation reads, and the operations between it and the inputs of the file.

    Nothing is returned if another layer precedes the convolution.
    """
    stem: list[Operation] = []
    read = [activation.inputs[0].name]
    while len(read) == 1 and read[0] in sources and sources[read[0]].name in (BEFORE_A_STEM if stem else ("CONV_2D",)):
        stem.append(sources[read[0]])
        read = [tensor.name for tensor in stem[-1].inputs if not tensor.constant]
    return stem if set(read) <= inputs else []


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
    if expected.ndim != 2 or expected.shape[1] < 2:
        return []
    least = LIMITS["int8"].top1_agreement or 0.0

    def agreement(names: Sequence[str]) -> float:
        written = path.with_name("int8.tflite")
        written.write_bytes(quantize(_with_readers(graph, names)))
        return float((_answer(written, feed).argmax(-1) == expected.argmax(-1)).mean())

    share = agreement([])
    if share >= least:
        return []
    names = [loss.name for loss in layer_losses(path.with_name("int8.tflite"), path, part_of(feed, 0, LOSS_IMAGES))[0]]
    most = int(LARGEST_SHARE * len(names))
    count = _fewest(lambda count: agreement(names[:count]) >= least, most)
    if count is None:
        warnings.warn(
            f"In int8, {share:.1%} of the calibration images keep their class, fewer than {least:.0%}. Not even "
            f"{most} of {len(names)} tensors in float are enough, so none stays in float; consider dtype='fp16' or "
            "'int8_weights'.",
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
