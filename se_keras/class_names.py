"""Class names: those of a model, and the names of a network's predictions.

A model has its class names in the layer that normalizes its images, next to its preprocessing: they are saved and
copied with it.
"""

from __future__ import annotations

import collections
import functools
import importlib.resources
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from se_keras.errors import check_count

if TYPE_CHECKING:
    import keras

ONE_OUTPUT = "One output column is the probability of the second of two classes, and takes two names"
_ROUNDING = 1e-3  # half-precision and 8-bit outputs exceed 0 and 1 by less


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
        ValueError: The caller's names do not fit the number of classes, or are the model's own in another order.
    """
    own = get_class_names(model) or None
    if class_names is None:
        return own
    names = check_class_names(class_names, classes)
    check_same_order(names, own)
    return names


def first_moved(names: Sequence[str], others: Sequence[str]) -> int | None:
    """Returns the first index where names differ from the same names in another order; None for other lists."""
    if sorted(names) != sorted(others):
        return None
    return next((place for place, pair in enumerate(zip(names, others, strict=True)) if pair[0] != pair[1]), None)


def check_same_order(names: Sequence[str], own: Sequence[str] | None, *, what: str = "`class_names`") -> None:
    """Rejects a model's own class names in another order.

    Args:
        names: The names that the caller gives.
        own: The model's own; None if it has none.
        what: Name of the list in messages.

    Raises:
        ValueError: The names are the same, but not in the same order.
    """
    place = first_moved(names, own or ())
    if own and place is not None:
        raise ValueError(
            f"Class names must be in the order of the model's outputs; {what} name class {place} {names[place]!r}, and "
            f"the model names it {own[place]!r}. Omit them, or if the model's own are wrong, call `set_class_names`."
        )


def _columns(model: keras.Model) -> int:
    """Returns the length of a model's output vector; 0 for another kind of output."""
    shape = getattr(model, "output_shape", None)
    return shape[-1] if isinstance(shape, tuple) and len(shape) == 2 and isinstance(shape[-1], int) else 0


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
