"""The samples that a file is verified on: random ones, in the range that the model takes, and real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from se_keras.export.images import (
    UNSTATED_PIXELS,
    VALIDATION,
    check_range,
    is_of_files,
    left_out,
    part_of_folder,
    preparation_of,
    range_note,
)
from se_keras.export.inputs import IMAGE, Feed, Input, Samples, described_draw, random_feed, takes_text
from se_keras.export.runner import Runner
from se_keras.export.runtime import KerasRunner
from se_keras.export.samples import is_of_images, is_of_pixels, real_samples, with_ranges_of
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import stored_preprocessing

OPEN_SIZE = 224  # of dimensions that neither the file nor the model states
RANDOM_SAMPLES = 8
OTHER_NAMES = (
    "The subfolders are not named like the model's classes, so they stand for its classes in sorted order. If that is "
    "wrong, rename them, or pass `labels`."
)

Conversion = Preprocessing | Callable[[np.ndarray], np.ndarray]


def shared_inputs(file: Runner, reference: Runner | None) -> tuple[Input, ...]:
    """Returns the inputs of a file and its reference, with the sizes that either states.

    Args:
        file: The file.
        reference: The reference, or None.

    Returns:
        The inputs of fixed sizes; names and ranges are those of a Keras model if there is one, else the file's.

    Raises:
        ValueError: The inputs differ in number, names, or shapes, or one of them is text.
    """
    base, other = (reference, file) if isinstance(reference, KerasRunner) else (file, reference or file)
    if len(base.inputs) != len(other.inputs):
        raise ValueError(
            f"The file and the model must have the same inputs; the file has {_named(file.inputs)}, and the model "
            f"{_named((reference or file).inputs)}."
        )
    if takes_text((*base.inputs, *other.inputs)):
        raise ValueError(f"Only models that take numbers can be verified; {_named(base.inputs)} takes text.")
    others = {one.name: one for one in other.inputs} if len(base.inputs) > 1 else {}
    pairs = [(one, others.get(one.name, other.inputs[place])) for place, one in enumerate(base.inputs)]
    shapes = [_shape(*(pair if base is file else pair[::-1])) for pair in pairs]
    return tuple(dataclasses.replace(one, shape=shape) for one, shape in zip(base.inputs, shapes, strict=True))


def _named(inputs: Sequence[Input]) -> str:
    return ", ".join(repr(one.name) for one in inputs)


def _shape(of_file: Input, of_model: Input) -> tuple[int, ...]:
    """Returns the fixed shape that both have, as far as either states it."""
    shapes = of_file.shape, of_model.shape
    sizes = [{size for size in pair if size is not None} for pair in zip(*shapes, strict=False)]
    if len(shapes[0]) != len(shapes[1]) or any(len(known) > 1 for known in sizes):
        raise ValueError(
            f"The file and the model must have the same input shape; received {shapes[0]} and {shapes[1]}."
        )
    return tuple(known.pop() if known else OPEN_SIZE for known in sizes)


def sample_sets(
    runner: Runner,
    inputs: Sequence[Input],
    data: Any,
    labels: Sequence[int] | None,
    *,
    most: int,
    preprocessing: Conversion | None,
    class_names: Sequence[str] = (),
) -> tuple[list[Samples], tuple[str, ...]]:
    """Returns random samples, real ones if there are any, and notes for the report.

    Args:
        runner: The reference, or else the file, with the preparation of photos.
        inputs: The inputs, of fixed sizes.
        data: As in `real_samples`, or None. Of a folder with a training and a validation part, the second is read.
        labels: As in `real_samples`.
        most: Maximum number of real samples.
        preprocessing: The conversion of pixels from 0 to 255 to the inputs that are images, or None.
        class_names: The class names, which subfolders may have in another order.

    Returns:
        The sets, the random one first, and the notes. Random values are in the range that the model states, or else in
        that of the real samples.

    Raises:
        ValueError: As in `real_samples`, or labels without data.
    """
    if preprocessing is not None:
        inputs = [dataclasses.replace(one, low=0.0, high=255.0) if one.kind == IMAGE else one for one in inputs]
    unit = "images" if is_of_images(inputs) else "samples"
    sets: list[Samples] = []
    notes: tuple[str, ...] = ()
    if data is None:
        if labels is not None:
            raise ValueError("`labels` require images; received labels without `data`. Pass the images as `data`.")
        notes = (_without_data(inputs),)
    else:
        data = part_of_folder(data, VALIDATION)
        real = _real(runner, inputs, data, labels, most, preprocessing, class_names)
        notes = (left_out(real.broken),) if real.broken else ()
        if len(real.folders) == len(class_names) and sorted(class_names) != [*real.folders]:
            notes = (*notes, OTHER_NAMES)
        if is_of_pixels(inputs) and preprocessing is None and not inputs[0].is_whole:
            notes = (*notes, *filter(None, [range_note(real.images)]))
        if is_of_images(inputs) and not is_of_pixels(inputs) and is_of_files(data):
            notes = (*notes, UNSTATED_PIXELS)
        inputs, sets = with_ranges_of(inputs, real.feed), [real]
    drawn = Samples("random", random_feed(inputs, RANDOM_SAMPLES), unit=unit)
    return [_converted(part, inputs, preprocessing) for part in (drawn, *sets)], notes


def _without_data(inputs: Sequence[Input]) -> str:
    low, high = inputs[0].drawn
    if is_of_images(inputs):
        return f"Compared on random images only, from {low:g} to {high:g}; pass photos as `data` (--data)."
    return f"Compared on random samples only: {described_draw(inputs)}; pass arrays or an .npz file as `data` (--data)."


def _real(
    runner: Runner,
    inputs: Sequence[Input],
    data: Any,
    labels: Sequence[int] | None,
    most: int,
    preprocessing: Conversion | None,
    class_names: Sequence[str],
) -> Samples:
    model = runner.model if isinstance(runner, KerasRunner) else None
    own = preprocessing if isinstance(preprocessing, Preprocessing) else Preprocessing()
    if is_of_images(inputs) and not isinstance(preprocessing, Preprocessing):
        height, width = (size or OPEN_SIZE for size in inputs[0].shape[:2])
        own = preparation_of(model, (height, width), runner.resizing)
    real = real_samples(data, labels, inputs, record=own, most=most, class_names=class_names)
    if model is not None and preprocessing is None and is_of_images(inputs) and stored_preprocessing(model) is not None:
        check_range(real.images)
    feed = dict(zip((one.name for one in inputs), real.feed.values(), strict=True))
    return dataclasses.replace(real, feed=feed)


def _converted(part: Samples, inputs: Sequence[Input], preprocessing: Conversion | None) -> Samples:
    if preprocessing is None:
        return part
    convert = preprocessing.normalize if isinstance(preprocessing, Preprocessing) else preprocessing
    feed: Feed = {
        one.name: np.asarray(convert(part.feed[one.name]), "float32") if one.kind == IMAGE else part.feed[one.name]
        for one in inputs
    }
    return dataclasses.replace(part, feed=feed)
