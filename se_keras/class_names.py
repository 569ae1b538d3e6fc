"""Class names: those of a model, lists of them in files, and the names of a network's predictions.

A model has its class names in the layer that normalizes its images, next to its preprocessing: they are saved and
copied with it.

A file of class names has one name per line. Ordinary names are written as they are. A name that could not be read back
from its line is written as a JSON string, in double quotes: one that is empty, begins or ends with whitespace, contains
a line break or a control character, or is itself in double quotes.
"""

from __future__ import annotations

import codecs
import collections
import functools
import importlib.resources
import json
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from se_keras.errors import check_count
from se_keras.files import replacing

if TYPE_CHECKING:
    import keras

NAMES_FILE = "labels.txt"
ONE_OUTPUT = "One output column is the probability of the second of two classes, and takes two names"
_MARKS = {  # longer marks first, because that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ROUNDING = 1e-3  # half-precision and 8-bit outputs exceed 0 and 1 by less


def read_class_names(path: str | os.PathLike) -> list[str]:
    """Reads a file of class names, in the order of the network's outputs.

    Args:
        path: A text file with one name per line, in UTF-8 (with or without a byte-order mark),
            or in UTF-16 or UTF-32 with one; with any line endings. Whitespace around a name and blank
            lines at the end are ignored. A line that is a JSON string stands for that string.

    Returns:
        The names.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file has another encoding, a blank line between names, a repeated name, or no name.
    """
    source = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file of class names at {source!r}.")
    names = class_names_in(pathlib.Path(path).read_bytes(), source)
    if not names:
        raise ValueError(f"{source!r} must name at least one class, one per line; it is empty.")
    return list(check_class_names(names, len(names), what=f"the names in {source!r}"))


def class_names_in(content: bytes, source: str) -> list[str]:
    """Returns the names in the content of a file, including repeated ones.

    Args:
        content: The bytes of the file, as described for `read_class_names`.
        source: Name of the file in messages.

    Returns:
        The names, possibly none.

    Raises:
        ValueError: The content has another encoding, or a blank line between names.
    """
    lines = re.split(r"\r\n|\r|\n", _text(content, source).rstrip())
    if lines == [""]:
        return []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(
                f"Each line of {source!r} must name a class; line {number} is blank. Remove the line, or write "
                '"" in it for a class without a name.'
            )
    return [_from_line(line) for line in lines]


def class_names_text(names: Iterable[str]) -> str:
    """Returns the text from which `read_class_names` reads these names.

    Args:
        names: The names.

    Returns:
        One line per name.
    """
    return "".join(f"{_as_line(name)}\n" for name in names)


def write_class_names(path: str | os.PathLike, names: Iterable[str]) -> None:
    """Writes a file of class names in UTF-8, for `read_class_names`.

    Args:
        path: The file. An existing text file is replaced.
        names: The names.

    Raises:
        FileExistsError: The path exists and is not a text file.
    """
    with replacing(path, overwrite=True) as temporary:
        temporary.write_bytes(class_names_text(names).encode())


def _text(content: bytes, source: str) -> str:
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        place = f"line {text[: text.index(chr(0))].count(chr(10)) + 1}" if "\0" in text else ""
    except UnicodeDecodeError as error:
        place = f"byte {error.start}"
    if place:
        raise ValueError(
            f"A file of class names must be UTF-8, or UTF-16 or UTF-32 with a byte-order mark; {source!r} is not, at "
            f"{place}. Save it as UTF-8."
        )
    return text


def _from_line(line: str) -> str:
    line = line.strip()
    try:
        name = json.loads(line) if line.startswith('"') else line
    except json.JSONDecodeError:
        return line
    return name if isinstance(name, str) else line


def _as_line(name: str) -> str:
    is_plain = name.splitlines() == [name] and not re.search(r"[\0-\x1f\x7f-\x9f\ud800-\udfff\ufeff]", name)
    return name if is_plain and _from_line(name) == name else json.dumps(name)


def set_class_names(model: keras.Model, class_names: Sequence[str]) -> keras.Model:
    """Names the classes of a model, which keeps the names when it is saved, exported, or rewritten.

    Args:
        model: A model with one output, of shape (batch, classes), that includes its preprocessing.
        class_names: A different name for each class, in the order of the outputs; two for one output.

    Returns:
        The same model.

    Raises:
        ValueError: The names do not fit the outputs, or the model does not include its preprocessing.

    Example:

    >>> model = set_class_names(SEResNet20(classes=2), ["cat", "dog"])
    >>> get_class_names(model)
    ('cat', 'dog')
    """
    from se_keras.preprocessing import preprocessing_layer

    columns = _columns(model)
    if not columns:
        raise ValueError(f"Class names need one output of shape (batch, classes); {model.name!r} has another one.")
    names = check_class_names(class_names, 2 if columns == 1 else columns)
    found = preprocessing_layer(model)
    if found is None:
        raise ValueError(
            f"A model has its class names next to its preprocessing, and {model.name!r} was built without. Build it "
            "with include_preprocessing=True, or pass `class_names` where they are needed."
        )
    found[0].class_names, found[0].classifier = names, model.layers[-1].name
    return model


def get_class_names(model: keras.Model) -> tuple[str, ...]:
    """Returns the class names of a model.

    Args:
        model: Any model.

    Returns:
        The names, in the order of the outputs; () if the model has none, like the networks for ImageNet's
        1,000 classes, or if its classifier was replaced by one of another name or size.
    """
    from se_keras.preprocessing import preprocessing_layer

    found = preprocessing_layer(model)
    if found is None or found[0].classifier != model.layers[-1].name:
        return ()
    names, columns = tuple(found[0].class_names), _columns(model)
    return names if len(names) == (2 if columns == 1 else columns) else ()


def class_names_for(model: keras.Model, class_names: Sequence[str] | None, classes: int) -> tuple[str, ...] | None:
    """Returns the class names to use with a model.

    Args:
        model: The model.
        class_names: The names that the caller gives. None: the model's own.
        classes: Number of classes.

    Returns:
        The names; None if there are none.

    Raises:
        ValueError: The caller's names do not fit the number of classes.
    """
    return get_class_names(model) or None if class_names is None else check_class_names(class_names, classes)


def _columns(model: keras.Model) -> int:
    """Returns the length of a model's output vector; 0 for another kind of output."""
    shape = getattr(model, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[-1], int) else 0


def caption(name: str) -> str:
    """Returns a class name as text that matplotlib shows unchanged: on one line, without math, and visible in a legend.

    Args:
        name: The name.

    Returns:
        The text for a figure.
    """
    line = json.dumps(name) if name.startswith("_") else _as_line(name)
    return line.replace("$", r"\$")


def check_class_names(names: Sequence[str], classes: int, *, what: str = "`class_names`") -> tuple[str, ...]:
    """Rejects names unless there is a different one for each class.

    Args:
        names: The names, in the order of the network's outputs.
        classes: Number of classes.
        what: Name of the list in messages.

    Returns:
        The names.

    Raises:
        ValueError: The names are one string or None instead of a sequence, are not all strings, are not one per
            class, or repeat a name.
    """
    if isinstance(names, str):
        raise ValueError(f"Class names must be a sequence of strings; received {what} as one string, {names[:40]!r}.")
    if not isinstance(names, Iterable):
        raise ValueError(
            f"Class names must be a sequence of strings; received {what} as {names!r:.40}. Pass a list with one name "
            "per class, in the order of the outputs."
        )
    names = tuple(names)
    for index, name in enumerate(names):
        if not isinstance(name, str) or re.search(r"[\ud800-\udfff]", name):
            raise ValueError(
                f"A class name must be a string that UTF-8 can encode; {what} have {name!r} for class {index}. "
                "Rename it."
            )
    if len(names) != classes:
        raise ValueError(
            f"There must be one name for each of the {classes} classes; received {len(names)} ({what})."
            f"{f' {ONE_OUTPUT}.' if classes == 2 and len(names) == 1 else ''}"
        )
    repeated = [name for name, count in collections.Counter(names).items() if count > 1]
    if repeated:
        places = [index for index, name in enumerate(names) if name == repeated[0]]
        raise ValueError(
            f"Each class must have its own name; {what} have {repeated[0]!r} for the classes "
            f"{', '.join(map(str, places[:5]))}. Add a number to each, for example."
        )
    return names


def decode_predictions(
    probabilities: Any, top: int = 5, class_names: Sequence[str] | keras.Model | None = None
) -> list[list[tuple[str, str, float]]]:
    """Decodes the predictions of a network into the names of the most probable classes.

    Args:
        probabilities: Array of shape (batch, classes), with values from 0 to 1. With two `class_names`, also
            of shape (batch, 1): the probability p of the second class, from one sigmoid output;
            the first class gets 1 - p.
        top: Number of classes per row, at least 1.
        class_names: Class names in the order of the network's outputs, or a model for its own. Default, and for a
            model without any: ImageNet's 1,000 in sorted-WNID order.

    Returns:
        For each row, triples (WNID, name, probability), most probable first. With
        `class_names`, the first element of a triple is the class index as a string.

    Raises:
        ValueError: The shape is wrong, values are NaN or not from 0 to 1 (the message names the
            rows), `class_names` do not fit the number of classes or repeat a name, or `top` < 1.

    Example:

    >>> decode_predictions(np.eye(1000)[:1], top=1)
    [[('n01440764', 'tench', 1.0)]]
    >>> decode_predictions([[0.25]], class_names=["cat", "dog"])
    [[('0', 'cat', 0.75), ('1', 'dog', 0.25)]]
    """
    import keras

    if isinstance(class_names, keras.Model):
        class_names = get_class_names(class_names) or None
    values = keras.ops.convert_to_numpy(probabilities)
    top = check_count("top", top)
    if values.ndim == 2 and values.shape[1] == 1 and class_names is not None and not isinstance(class_names, str):
        check_class_names(class_names, 2)
        values = np.concatenate([1 - values, values], axis=1)
    pairs = imagenet_classes() if class_names is None else _numbered(class_names, values)
    if values.ndim != 2 or values.shape[1] != len(pairs):
        remedy = " Pass the names of your own classes as `class_names`." if class_names is None else ""
        raise ValueError(
            f"`probabilities` must have shape (batch, {len(pairs)}), one column per class; "
            f"received shape {values.shape}.{remedy}"
        )
    _check_probabilities(values)
    order = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [[(*pairs[i], float(row[i])) for i in best] for row, best in zip(values, order, strict=True)]


def _numbered(class_names: Sequence[str], values: np.ndarray) -> tuple[tuple[str, str], ...]:
    names = check_class_names(class_names, values.shape[1] if values.ndim == 2 else len(class_names))
    return tuple((str(index), name) for index, name in enumerate(names))


def _check_probabilities(values: np.ndarray) -> None:
    is_wrong = ~((values >= -_ROUNDING) & (values <= 1 + _ROUNDING))  # true for NaN
    rows = np.flatnonzero(is_wrong.any(axis=1))
    if rows.size:
        example = values[rows[0]][is_wrong[rows[0]]][0]
        more = f" (and {rows.size - 1} more rows)" if rows.size > 1 else ""
        remedy = " Apply keras.ops.softmax or sigmoid to logits first." if np.isfinite(example) else ""
        raise ValueError(f"Probabilities must be between 0 and 1; row {rows[0]} has {example:.4g}{more}.{remedy}")


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Returns ImageNet's 1,000 classes.

    Returns:
        (WNID, name) pairs in sorted-WNID order, such as ("n01440764", "tench"). All names differ.
    """
    text = importlib.resources.files("se_keras").joinpath("data/imagenet_labels.txt").read_text("utf-8")
    return tuple((wnid, name) for wnid, name in (line.split(" ", 1) for line in text.splitlines()))
