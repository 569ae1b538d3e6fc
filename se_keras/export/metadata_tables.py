"""Reading and writing of the tables of TFLite Metadata, by field name.

The binary form has no names: a field is a number in its table. `TABLES` maps the numbers to names, for both reading
and writing. Schema: tensorflow/tflite-support, metadata_schema.fbs. No package that LiteRT needs contains its generated
code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

IDENTIFIER = b"M001"

# Fields in the order of the schema, up to the last one needed.
TABLES: dict[str, dict[str, str]] = {
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": "[SubGraphMetadata]",
        "author": "string",
        "license": "string",
        "associated_files": "[AssociatedFile]",
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": "[TensorMetadata]",
        "output_tensor_metadata": "[TensorMetadata]",
    },
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": "[string]",
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": "[AssociatedFile]",
    },
    "Content": {"content_properties": "ContentProperties"},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "byte"},
    "ProcessUnit": {"options": "ProcessUnitOptions"},
    "NormalizationOptions": {"mean": "[float]", "std": "[float]"},
    "Stats": {"max": "[float]", "min": "[float]"},
    "AssociatedFile": {"name": "string", "description": "string", "type": "byte", "locale": "string"},
}

# The options of each union field, from tag 1 up to the last one needed.
UNIONS = {
    "ContentProperties": ("FeatureProperties", "ImageProperties"),
    "ProcessUnitOptions": ("NormalizationOptions",),
}


def read(content: bytes) -> dict[str, Any]:
    """Reads metadata.

    Args:
        content: A flatbuffer whose root is a "ModelMetadata".

    Returns:
        The fields that it has. Tables are dictionaries, unions pairs of a table's name and its dictionary, vectors of
        numbers arrays, and other vectors lists.

    Raises:
        struct.error, ValueError: The content is damaged.
    """
    from flatbuffers.table import Table

    root = Table(content, 0)
    return _fields(Table(content, root.Indirect(0)), "ModelMetadata")


def write(fields: Mapping[str, Any]) -> bytes:
    """Writes metadata.

    Args:
        fields: As returned by `read`.

    Returns:
        The flatbuffer.
    """
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(_written(builder, "ModelMetadata", fields), IDENTIFIER)
    return bytes(builder.Output())


def _slots(table: str) -> Iterator[tuple[int, str, str]]:
    slot = 0
    for name, kind in TABLES[table].items():
        yield slot, name, kind
        slot += 2 if kind in UNIONS else 1  # a union is its tag and its table


def _fields(table: Any, kind: str) -> dict[str, Any]:
    found = {}
    for slot, name, inner in _slots(kind):
        place = _place(table, slot)
        if place and inner in UNIONS:
            options, place = dict(enumerate(UNIONS[inner], 1)), _place(table, slot + 1)
            option = options.get(_value(table, _place(table, slot), "byte"))
            if place and option:
                found[name] = (option, _value(table, place, option))
        elif place:
            found[name] = _value(table, place, inner)
    return found


def _place(table: Any, slot: int) -> int:
    """Returns the position of a field of a table, or 0 if it is absent."""
    distance = table.Offset(4 + 2 * slot)
    return table.Pos + distance if distance else 0


def _value(table: Any, place: int, kind: str) -> Any:
    from flatbuffers import number_types

    if kind == "byte":
        return table.Get(number_types.Int8Flags, place)
    if kind == "string":
        return table.String(place).decode()
    if kind in TABLES:
        return _fields(type(table)(table.Bytes, table.Indirect(place)), kind)
    distance = place - table.Pos
    if kind == "[float]":
        return table.GetVectorAsNumpy(number_types.Float32Flags, distance)
    start, count = table.Vector(distance), table.VectorLen(distance)
    return [_value(table, start + 4 * number, kind.strip("[]")) for number in range(count)]


def _written(builder: Any, table: str, fields: Mapping[str, Any]) -> int:
    """Adds a table to a flatbuffer, and returns its position as the builder counts it."""
    slots = [(slot, kind, fields[name]) for slot, name, kind in _slots(table) if name in fields]
    # Parts come first: a flatbuffer is written from its end.
    parts = [part for slot, kind, value in slots for part in _parts(builder, slot, kind, value)]
    builder.StartObject(1 + max((slot for slot, _, _ in parts), default=-1))
    for slot, kind, value in parts:
        prepend = builder.PrependInt8Slot if kind == "byte" else builder.PrependUOffsetTRelativeSlot
        prepend(slot, value, 0)
    return builder.EndObject()


def _parts(builder: Any, slot: int, kind: str, value: Any) -> list[tuple[int, str, Any]]:
    """Returns the entries of a field in its table: slot, kind, and number or position."""
    if kind in UNIONS:
        option, fields = value
        tag = 1 + UNIONS[kind].index(option)
        return [(slot, "byte", tag), (slot + 1, option, _written(builder, option, fields))]
    return [(slot, kind, value if kind == "byte" else _position(builder, kind, value))]


def _position(builder: Any, kind: str, value: Any) -> int:
    if kind in TABLES:
        return _written(builder, kind, value)
    if kind == "string":
        return builder.CreateString(value)
    if kind == "[float]":
        return builder.CreateNumpyVector(np.asarray(value, "<f4"))
    positions = [_position(builder, kind.strip("[]"), entry) for entry in value]
    builder.StartVector(4, len(positions), 4)
    for position in reversed(positions):
        builder.PrependUOffsetTRelative(position)
    return builder.EndVector()
