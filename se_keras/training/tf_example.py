"""`tf.train.Example` messages without TensorFlow: the positions of the values of a feature in the bytes.

The format is simple and has not changed since 2015 (tensorflow/core/example). An Example holds one Features (field 1),
which holds a map (field 1) from names (field 1) to Feature (field 2). A Feature holds one list of bytes (field 1),
floats (2), or int64 (3), whose values are field 1. The functions return positions rather than values, so the image in
a record of a mapped file is neither read nor copied to find its label.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Span = tuple[int, int]
"""Position of the first byte, and of the first byte after the end."""


def features(data: bytes | mmap.mmap, span: Span) -> dict[str, Span]:
    """Finds the features of an Example.

    Args:
        data: Bytes that contain the message.
        span: Position of the message in the bytes.

    Returns:
        A dictionary from each name to the position of its Feature message.

    Raises:
        ValueError: The bytes are not an Example.
    """
    try:
        found = {}
        for everything in _messages(data, span, 1):
            for entry in _messages(data, everything, 1):
                fields = {number: (begin, end) for number, begin, end in _fields(data, entry)}
                if {1, 2} <= fields.keys():
                    found[bytes(data[slice(*fields[1])]).decode()] = fields[2]
        return found
    except (ValueError, IndexError) as error:
        raise ValueError("is not a tf.train.Example") from error


def first_bytes(data: bytes | mmap.mmap, feature: Span) -> Span | None:
    """Finds the first value of a list of bytes.

    Args:
        data: Bytes that contain the feature.
        feature: Position of the feature in the bytes, from `features`.

    Returns:
        The position of the value, or None if the feature has another type or is empty.
    """
    return _first(data, feature, 1)


def first_integer(data: bytes | mmap.mmap, feature: Span) -> int | None:
    """Returns the first value of a list of integers.

    Args:
        data: Bytes that contain the feature.
        feature: Position of the feature in the bytes, from `features`.

    Returns:
        The value, or None if the feature has another type or is empty.
    """
    span = _first(data, feature, 3)
    if span is None or span[0] == span[1]:
        return None
    value = _varint(data, *span)[0]
    return value - (1 << 64) if value >> 63 else value


def _first(data: bytes | mmap.mmap, feature: Span, kind: int) -> Span | None:
    for values in _messages(data, feature, kind):
        for value in _messages(data, values, 1):
            return value
    return None


def _messages(data: bytes | mmap.mmap, span: Span, wanted: int) -> Iterator[Span]:
    return ((begin, end) for number, begin, end in _fields(data, span) if number == wanted)


def _fields(data: bytes | mmap.mmap, span: Span) -> Iterator[tuple[int, int, int]]:
    """Yields the number and position of each field of a message (protobuf.dev/programming-guides/encoding)."""
    begin, end = span
    while begin < end:
        key, begin = _varint(data, begin, end)
        kind = key & 7
        if kind == 0:
            stop = _varint(data, begin, end)[1]
        elif kind == 2:
            size, begin = _varint(data, begin, end)
            stop = begin + size
        elif kind in (1, 5):
            stop = begin + (8 if kind == 1 else 4)
        else:
            raise ValueError(f"unknown wire type {kind}")
        if stop > end:
            raise ValueError("a field extends beyond the end of its message")
        yield key >> 3, begin, stop
        begin = stop


def _varint(data: bytes | mmap.mmap, begin: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if begin >= end:
            break
        byte = data[begin]
        begin += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, begin
    raise ValueError("an integer has no end")
