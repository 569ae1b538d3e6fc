"""The first layers of networks with swishes, which stay in float in 8-bit files of every format.

Their maps are large and have few channels, and their weights are few: 8 bits save little there. Their errors, however,
pass through the whole network.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

LARGEST_SHARE_OF_LAYERS = 0.25


class Kind(enum.Enum):
    """What an operation does; `SIMPLE` stands for normalization, padding, resizing, and changes of layout."""

    CONVOLUTION = enum.auto()
    DENSE = enum.auto()
    SWISH = enum.auto()
    SIGMOID = enum.auto()
    PRODUCT = enum.auto()
    SIMPLE = enum.auto()
    OTHER = enum.auto()


LAYERS = (Kind.CONVOLUTION, Kind.DENSE)


class Step(NamedTuple):
    """An operation of a network.

    Args:
        name: Its name.
        kind: What it does; a hard sigmoid is a sigmoid as well.
        weights: Number of weights of a layer, without biases; 0 if they are computed.
        reads: Names of the operations whose results it reads.
    """

    name: str
    kind: Kind
    weights: int
    reads: tuple[str, ...]


def first_layers(steps: Sequence[Step]) -> list[str]:
    """Finds the stem, and the layers behind it that have few weights.

    They end before the first layer with more weights than the first convolution, and are at most a quarter of all
    layers. A network has none if its first layer is not a convolution of the image, or is not followed by a swish.

    Args:
        steps: The operations in the order of computation.

    Returns:
        The names of the operations, with those in front of the first convolution.
    """
    layers = [place for place, step in enumerate(steps) if step.kind in LAYERS]
    most = int(LARGEST_SHARE_OF_LAYERS * len(layers))
    if not most or not _is_stem(steps[: layers[0] + 1]) or not _has_swish(steps[layers[0] : layers[1]]):
        return []
    heavier = (place for place in layers if steps[place].weights > steps[layers[0]].weights)
    return [step.name for step in steps[: min(next(heavier, layers[most]), layers[most])]]


def _is_stem(steps: Sequence[Step]) -> bool:
    *before, layer = steps
    is_prepared = all(step.kind in (Kind.SIMPLE, Kind.PRODUCT) for step in before)
    return is_prepared and layer.kind is Kind.CONVOLUTION and layer.weights > 0


def _has_swish(steps: Sequence[Step]) -> bool:
    """Returns whether there is a swish, in one piece or as the product of a tensor and its sigmoid."""
    gates = {(step.name, *step.reads) for step in steps if step.kind is Kind.SIGMOID}
    return any(
        step.kind is Kind.SWISH or (step.kind is Kind.PRODUCT and {step.reads, step.reads[::-1]} & gates)
        for step in steps
    )


def check_keep_float(keep_float: Any, dtype: str) -> None:
    """Rejects the argument of an export for any other precision than "int8".

    Args:
        keep_float: The argument.
        dtype: The precision of the file.

    Raises:
        ValueError: The argument is not None, and `dtype` is not "int8".
    """
    if keep_float is not None and dtype != "int8":
        raise ValueError(f"`keep_float` requires dtype='int8'; received dtype={dtype!r}.")


def check_names_nothing(keep_float: Any, what: str) -> None:
    """Rejects anything but None and an empty list.

    Args:
        keep_float: The argument of an export that cannot keep layers in float by name.
        what: What is written, such as "An .onnx file".

    Raises:
        ValueError: The argument is neither.
    """
    if keep_float is not None and (not isinstance(keep_float, list | tuple) or keep_float):
        raise ValueError(
            f"{what} cannot keep layers in float by name, as a .tflite file can: `keep_float` must be None or an empty "
            f"list; received {keep_float!r}."
        )
