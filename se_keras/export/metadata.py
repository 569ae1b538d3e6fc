"""Class names and normalization inside a `.tflite` file, where MediaPipe Tasks and Android's code generators read them.

The format is TFLite Metadata: a separate flatbuffer in an additional buffer of the model, and a zip archive of the
files that it names, appended to the model.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from se_keras.class_names import check_class_names
from se_keras.class_names_file import NAMES_FILE, class_names_in, class_names_text
from se_keras.export import metadata_tables
from se_keras.export.tensorflow_internals import schema_module
from se_keras.export.tflite_file import damage_reported, packed, read_model

ENTRY = b"TFLITE_METADATA"
PARSER_VERSION = "1.0.0"  # the first version of the schema; it has all fields written here
AXIS_LABELS, VALUE_LABELS = 2, 3  # kinds of an associated file: names of the columns; of 0 and 1 in a single column
COLOR_SPACES = {3: 1, 1: 2}  # RGB and gray, by channels
FLOAT32, UINT8, INT16, INT8 = 0, 3, 7, 9  # of a tensor's type
RANGES = {UINT8: (0, 255), INT16: (-32768, 32767), INT8: (-128, 127)}


@dataclasses.dataclass(frozen=True)
class ClassifierMetadata:
    """The classifier metadata of a `.tflite` file.

    Args:
        name: Name of the model.
        description: Description of the model.
        class_names: Class names in the order of the outputs; empty if the file has none.
        mean: Value subtracted from a pixel of 0 to 255: one value, or one per channel; empty
            if the file does not state it.
        std: Divisor of the difference; as many values as `mean`.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def add_classifier_metadata(
    content: bytes,
    *,
    class_names: Sequence[str],
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    name: str,
    description: str = "",
) -> bytes:
    """Adds to a TFLite model the metadata with which MediaPipe's `ImageClassifier` can run it.

    The model's tables and weights are unchanged. MediaPipe accepts a float32 input, which it
    fills with (pixel - mean) / std, or a uint8 input, which it fills with the pixels regardless of its quantization
    parameters; it rejects int8 and int16 inputs, and a batch other than 1.

    Args:
        content: Content of a `.tflite` file with one input of shape (batch, height, width, 3 or 1)
            and one output of shape (batch, classes). Existing metadata is replaced.
        class_names: Class names in the order of the outputs; two for an output of one column, which
            is the probability or logit of the second class. MediaPipe shows no names for such a file.
        mean: Value to subtract from a pixel of 0 to 255: one value, or one per channel. 0 for
            a network that contains its preprocessing. None if the normalization is unknown: MediaPipe then refuses
            a float32 input.
        std: Divisor of the difference, above 0; 1 for a network that contains its
            preprocessing. For a quantized input, the values before quantization. None if `mean` is.
        name: Name of the model.
        description: Description of the model.

    Returns:
        Content of a `.tflite` file with exactly the same outputs.

    Raises:
        ImportError: Neither `ai_edge_litert` nor TensorFlow is installed.
        ValueError: Not a TFLite model of one image and one vector of scores, class names that do
            not fit the output, or invalid normalization values.
    """
    model = read_model(_split(content)[0])
    image, scores = _classifier_tensors(model)
    columns = int(scores.shape[-1])
    class_names = check_class_names(class_names, 2 if columns == 1 else columns)
    channels = int(image.shape[-1])
    statement = _statement(
        image,
        normalization=None if mean is None or std is None else _normalization(mean, std, channels),
        color_space=COLOR_SPACES[channels],
        labels_kind=VALUE_LABELS if columns == 1 else AXIS_LABELS,
        name=name,
        description=description,
    )
    _state(model, statement)
    return _with_names(packed(model), class_names)


def read_metadata(model: bytes) -> ClassifierMetadata | None:
    """Reads the metadata of a TFLite model, from any writer.

    Args:
        model: Content of a `.tflite` file.

    Returns:
        The metadata, or None if there is none.

    Raises:
        ImportError: Neither `ai_edge_litert` nor TensorFlow is installed.
        ValueError: The content is not a TFLite model, or is damaged.
    """
    content, files = _split(model)
    buffer = _statement_buffer(read_model(content))
    if buffer is None:
        return None
    with damage_reported():
        fields = metadata_tables.read(buffer.data.tobytes())
    subgraph: dict[str, Any] = next(iter(fields.get("subgraph_metadata", [])), {})
    normalization = _normalization_in(subgraph)
    return ClassifierMetadata(
        name=fields.get("name", ""),
        description=fields.get("description", ""),
        class_names=_names_in(subgraph, files),
        mean=tuple(map(float, normalization.get("mean", ()))),
        std=tuple(map(float, normalization.get("std", ()))),
    )


# Reading.


def _split(model: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Returns the flatbuffer, and the files of the archive after it by name."""
    try:
        with zipfile.ZipFile(io.BytesIO(model)) as archive:
            entries = archive.infolist()
            end = min((entry.header_offset for entry in entries), default=archive.start_dir)
            return model[:end], {entry.filename: archive.read(entry) for entry in entries}
    except zipfile.BadZipFile:  # no archive
        return model, {}


def _statement_buffer(model: Any) -> Any:
    """Returns the buffer that holds the metadata of a model, or None."""
    entry = next((entry for entry in model.metadata or () if entry.name == ENTRY), None)
    return None if entry is None else model.buffers[entry.buffer]


def _classifier_tensors(model: Any) -> tuple[Any, Any]:
    """Returns the tensors of the image and the scores."""
    with damage_reported():
        graph = model.subgraphs[0]
        inputs, outputs = ([graph.tensors[index] for index in side] for side in (graph.inputs, graph.outputs))
        shapes = [[_shape(tensor) for tensor in side] for side in (inputs, outputs)]
    fits = len(inputs) == len(outputs) == 1 and len(shapes[0][0]) == 4 and shapes[0][0][-1] in COLOR_SPACES
    if not fits or not shapes[1][0]:
        raise ValueError(
            "Classifier metadata needs one input of shape (batch, height, width, 3 or 1) and one output of shape "
            f"(batch, classes); received inputs of shapes {shapes[0]} and outputs of shapes {shapes[1]}. Omit the "
            "metadata."
        )
    if inputs[0].type not in (FLOAT32, *RANGES):
        raise ValueError(
            "The image of a classifier must be float32, uint8, int8, or int16; received TFLite tensor type "
            f"{inputs[0].type}."
        )
    return inputs[0], outputs[0]


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(tensor.shape.tolist())


def _normalization_in(subgraph: dict[str, Any]) -> dict[str, Any]:
    image: dict[str, Any] = next(iter(subgraph.get("input_tensor_metadata", [])), {})
    options = (unit.get("options", ("", {})) for unit in image.get("process_units", []))
    return next((fields for kind, fields in options if kind == "NormalizationOptions"), {})


def _names_in(subgraph: dict[str, Any], files: dict[str, bytes]) -> tuple[str, ...]:
    scores: dict[str, Any] = next(iter(subgraph.get("output_tensor_metadata", [])), {})
    files_of = [file for file in scores.get("associated_files", []) if file.get("type") in (AXIS_LABELS, VALUE_LABELS)]
    names = [file.get("name", "") for file in files_of]
    if not names:
        return ()
    with damage_reported():
        return tuple(class_names_in(files[names[0]], names[0]))


# Checking.


def _normalization(mean: float | Sequence[float], std: float | Sequence[float], channels: int) -> dict[str, np.ndarray]:
    values = {"mean": np.atleast_1d(np.asarray(mean, "float32")), "std": np.atleast_1d(np.asarray(std, "float32"))}
    for name, array in values.items():
        if array.shape not in ((1,), (channels,)) or not np.isfinite(array).all():
            raise ValueError(
                f"`{name}` must be one finite number, or one for each of {channels} channels; received {array}."
            )
    if not (values["std"] > 0).all():
        raise ValueError(f"`std` must be above 0; received {values['std']}.")
    # MediaPipe requires the same number of values for both.
    return dict(zip(values, np.broadcast_arrays(*values.values()), strict=True))


# Writing.


def _statement(
    image: Any,
    *,
    normalization: dict[str, np.ndarray] | None,
    color_space: int,
    labels_kind: int,
    name: str,
    description: str,
) -> bytes:
    """Builds the flatbuffer of the metadata."""
    image_metadata: dict[str, Any] = {
        "name": "image",
        "description": "Image to be classified, resized to the size of the input.",
        "content": {"content_properties": ("ImageProperties", {"color_space": color_space})},
    }
    if normalization is not None:
        image_metadata["process_units"] = [{"options": ("NormalizationOptions", normalization)}]
    if image.type != FLOAT32:
        lowest, highest = RANGES[image.type]
        image_metadata["stats"] = {"max": [highest], "min": [lowest]}
    elif normalization is not None:
        lowest, highest = ((pixel - normalization["mean"]) / normalization["std"] for pixel in (0, 255))
        image_metadata["stats"] = {"max": highest, "min": lowest}
    scores_metadata = {
        "name": "scores",
        "description": "Score of each class.",
        "content": {"content_properties": ("FeatureProperties", {})},
        "associated_files": [
            {"name": NAMES_FILE, "description": "Names of the classes, one per line.", "type": labels_kind}
        ],
    }
    metadata = {
        "name": name,
        "description": description,
        "subgraph_metadata": [
            {"input_tensor_metadata": [image_metadata], "output_tensor_metadata": [scores_metadata]},
        ],
        "min_parser_version": PARSER_VERSION,
    }
    return metadata_tables.write(metadata)


def _state(model: Any, statement: bytes) -> None:
    """Puts the metadata into a model, in place of any earlier metadata."""
    buffer = _statement_buffer(model)
    if buffer is None:
        buffer, entry = schema_module().BufferT(), schema_module().MetadataT()
        entry.name, entry.buffer = ENTRY, len(model.buffers)
        model.metadata = [*(model.metadata or ()), entry]
        model.buffers.append(buffer)
    buffer.data = np.frombuffer(statement, "uint8")


def _with_names(content: bytes, class_names: Sequence[str]) -> bytes:
    file = io.BytesIO()
    file.write(content)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:  # readers map the files and cannot decompress
        archive.writestr(zipfile.ZipInfo(NAMES_FILE), class_names_text(class_names))
    return file.getvalue()
