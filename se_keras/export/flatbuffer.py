"""Reading and writing of some tables of a `.tflite` file and its metadata, by field name.

The binary form has no names: a field is a number in its table. `TABLES` maps the numbers to names, for both reading
and writing. Schemas: tensorflow/tensorflow, schema.fbs; tensorflow/tflite-support, metadata_schema.fbs.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from se_keras.errors import missing_package

# Fields in the order of the schema, up to the last one needed. A "ref" is a part that stays in place: it is read as its
# position in bytes, and written from a position as the builder counts it.
TABLES: dict[str, dict[str, str]] = {
    "Model": {
        "version": "uint",
        "operator_codes": "ref",
        "subgraphs": "[ref]",
        "description": "ref",
        "buffers": "[ref]",
        "metadata_buffer": "ref",
        "metadata": "[Metadata]",
        "signature_defs": "ref",
        "external_buffer_groups": "ref",
        "external_buffers": "ref",
    },
    "SubGraph": {"tensors": "[ref]", "inputs": "[int]", "outputs": "[int]"},
    "Tensor": {"shape": "[int]", "type": "byte", "buffer": "uint", "name": "string", "quantization": "ref"},
    "QuantizationParameters": {"min": "ref", "max": "ref"},
    "Buffer": {"data": "ref", "offset": "ulong"},
    "Metadata": {"name": "string", "buffer": "uint"},
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

NUMBERS = {"byte": "<i1", "ushort": "<u2", "int": "<i4", "uint": "<u4", "ulong": "<u8", "float": "<f4"}

ALIGNMENT = 16  # bytes, of the vectors that hold a model's weights


def read(content: bytes, position: int, table: str) -> dict[str, Any]:
    """Reads the fields that a table has.

    Args:
        content: A flatbuffer.
        position: Position of the table in bytes.
        table: Name of the table in `TABLES`.

    Returns:
        A dictionary from field names to numbers, text, arrays of numbers, positions ("ref"),
        dictionaries (tables), pairs of a table's name and its dictionary (unions), or lists of these.

    Raises:
        ValueError: The content is damaged.
    """
    fields = {}
    for slot, name, kind in _slots(table):
        place = _place(content, position, slot)
        if place and kind in UNIONS:
            option = dict(enumerate(UNIONS[kind], 1)).get(_number(content, place, "byte"))
            place = _place(content, position, slot + 1)
            if place and option:
                fields[name] = (option, _value(content, place, option))
        elif place:
            fields[name] = _value(content, place, kind)
    return fields


def read_root(content: bytes, table: str) -> dict[str, Any]:
    """Reads the root table of a flatbuffer; other arguments, result, and errors as in `read`."""
    return read(content, _target(content, 0), table)


def unknown_fields(content: bytes, table: str) -> list[int]:
    """Returns the numbers of the root table's fields that `TABLES` lacks; arguments as in `read`."""
    position = _target(content, 0)
    known = {slot for slot, _, _ in _slots(table)}
    return [slot for slot in range(_field_count(content, position)) if slot not in known]


def span(content: bytes, position: int, kind: str = "byte") -> slice:
    """Locates the elements of a vector of numbers of a kind in `NUMBERS`; other arguments as in `read`."""
    start = position + 4
    return slice(start, start + _number(content, position, "uint") * np.dtype(NUMBERS[kind]).itemsize)


def with_vector(content: bytes, position: int, table: str, name: str, numbers: Sequence[int]) -> bytes:
    """Replaces the vector of numbers in an existing field of a flatbuffer.

    Args:
        content: A flatbuffer.
        position: Where in it the table is, in bytes.
        table: Its name in `TABLES`.
        name: The field's name, a vector of numbers.
        numbers: Its new elements.

    Returns:
        The content, with the new vector appended.
    """
    slot, kind = next((slot, kind) for slot, field, kind in _slots(table) if field == name)
    place, start = _place(content, position, slot), -(-len(content) // 8) * 8
    vector = np.uint32(len(numbers)).tobytes() + np.asarray(numbers, NUMBERS[kind.strip("[]")]).tobytes()
    edited = bytearray(content.ljust(start, b"\0") + vector)
    edited[place : place + 4] = np.asarray(start - place, NUMBERS["uint"]).tobytes()
    return bytes(edited)


def write(builder: Any, table: str, fields: Mapping[str, Any]) -> int:
    """Adds a table to a flatbuffer.

    Args:
        builder: A `flatbuffers.Builder`.
        table: The table's name in `TABLES`.
        fields: As returned by `read`; absent fields get the schema's default.

    Returns:
        The position of the table as the builder counts it, in bytes from the end.
    """
    slots = [(slot, kind, fields[name]) for slot, name, kind in _slots(table) if name in fields]
    # Parts come first: a flatbuffer is written from its end.
    parts = [(slot, *part) for slot, kind, value in slots for part in _parts(builder, kind, value)]
    builder.StartObject(1 + max((slot + shift for slot, shift, _, _ in parts), default=-1))
    for slot, shift, kind, value in parts:
        if kind in NUMBERS:
            {"byte": builder.PrependInt8Slot, "uint": builder.PrependUint32Slot}[kind](slot + shift, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot + shift, value, 0)
    return builder.EndObject()


def write_bytes(builder: Any, data: bytes) -> int:
    """Adds a vector of bytes with the alignment of weights; other arguments and result as in `write`."""
    builder.Prep(ALIGNMENT, len(data))
    return builder.CreateByteVector(data)


def new_builder() -> Any:
    """Creates an empty flatbuffer to write to.

    Returns:
        A `flatbuffers.Builder`.

    Raises:
        ImportError: The package `flatbuffers`, which the TFLite runtimes install, is not installed.
    """
    try:
        builder = importlib.import_module("flatbuffers.builder")
    except ImportError as error:
        raise missing_package("flatbuffers", "litert", "Writing metadata into a .tflite file") from error
    return builder.Builder()


def _slots(table: str) -> Iterator[tuple[int, str, str]]:
    slot = 0
    for name, kind in TABLES[table].items():
        yield slot, name, kind
        slot += 2 if kind in UNIONS else 1  # a union is its tag and its table


def _vtable(content: bytes, position: int) -> int:
    return position - _number(content, position, "int")


def _field_count(content: bytes, position: int) -> int:
    return _number(content, _vtable(content, position), "ushort") // 2 - 2


def _place(content: bytes, position: int, slot: int) -> int:
    """Returns the position of a field of a table, or 0 if it is absent."""
    if slot >= _field_count(content, position):
        return 0
    distance = _number(content, _vtable(content, position) + 4 + 2 * slot, "ushort")
    return position + distance if distance else 0


def _target(content: bytes, position: int) -> int:
    return position + _number(content, position, "uint")


def _number(content: bytes, position: int, kind: str) -> Any:
    return np.frombuffer(content, NUMBERS[kind], 1, position)[0].item()


def _value(content: bytes, position: int, kind: str) -> Any:
    if kind in NUMBERS:
        return _number(content, position, kind)
    target = _target(content, position)
    if kind == "ref":
        return target
    if kind in TABLES:
        return read(content, target, kind)
    count, start = _number(content, target, "uint"), target + 4
    if kind == "string":
        return content[start : start + count].decode()
    element = kind.strip("[]")
    if element in NUMBERS:
        return np.frombuffer(content, NUMBERS[element], count, start)
    return [_value(content, start + 4 * i, element) for i in range(count)]


def _parts(builder: Any, kind: str, value: Any) -> list[tuple[int, str, Any]]:
    """Returns the entries of a field in its table: distance from its own slot, kind, and number or position."""
    if kind in UNIONS:
        option, fields = value
        return [(0, "byte", 1 + UNIONS[kind].index(option)), (1, "ref", write(builder, option, fields))]
    return [(0, kind, value if kind in NUMBERS else _position(builder, kind, value))]


def _position(builder: Any, kind: str, value: Any) -> int:
    if kind == "ref":
        return value
    if kind in TABLES:
        return write(builder, kind, value)
    if kind == "string":
        return builder.CreateString(value)
    element = kind.strip("[]")
    if element in NUMBERS:
        return builder.CreateNumpyVector(np.asarray(value, NUMBERS[element]))
    positions = [_position(builder, element, entry) for entry in value]
    builder.StartVector(4, len(positions), 4)
    for position in reversed(positions):
        builder.PrependUOffsetTRelative(position)
    return builder.EndVector()
