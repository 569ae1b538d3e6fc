"""Batches of images in a fixed order, for training, for evaluation, and for `fit`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from se_keras.errors import missing_package
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocess
from se_keras.training.augment import RandomAreaCrop
from se_keras.training.distribute import ALONE, Processes
from se_keras.training.recipes import Recipe
from se_keras.training.sources import Data, ImageSource

EVALUATION_BATCH = 128


class _Indices:
    """The positions of a source, for Grain to read, so that images are decoded only when they are needed."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        return int(index)


def check_batches(source: ImageSource, batch_size: int) -> None:
    """Checks in advance whether `shuffled` can make batches.

    Args:
        source: The images.
        batch_size: Images per batch, over all shards.

    Raises:
        ImportError: Grain is not installed.
        ValueError: There are fewer images than a batch takes.
    """
    _grain()
    if len(source) < batch_size:
        raise ValueError(
            f"A batch takes {batch_size} images, but there are {len(source)} for training. Choose smaller batches: "
            "`--batch-size` on the command line, `recipe.with_batch_size` in Python."
        )


def fit_data(
    data: Data,
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    seed: int = 0,
    start: tuple[int, int] = (0, 0),
    processes: Processes = ALONE,
    threads: int = 2,
) -> dict[str, Any]:
    """Returns training and validation images as arguments of `model.fit`.

    Training images are shuffled and augmented. Each epoch has its own order and its own augmentation; images that do
    not fill a whole batch are left out of that epoch. The pixels of a step depend only on the seed, the epoch, and the
    step, with any number of threads and on every backend. Validation images are resized and cropped.

    Args:
        data: The images, from `open_data`.
        preprocessing: The preprocessing of the model.
        recipe: The recipe, whose batch size and transforms are used.
        seed: Seed of the order and the augmentation; an integer, at least 0.
        start: Completed epochs, and completed steps in the next epoch. Keras cannot start within an epoch: with
            completed steps, the first epoch of this `fit` has only the remaining ones.
        processes: The value of `distribute.join` or `distribute.mirrored`. With several devices, validation images
            have weights: compile the model with `weighted_metrics` instead of `metrics`.
        threads: Number of threads that read ahead.

    Returns:
        A dictionary with `x`, `validation_data`, `steps_per_epoch`, `validation_steps`, `initial_epoch`, and `shuffle`.
        Images have shape (batch, height, width, 3), uint8, 0 to 255 (float32 after mixup); labels are one-hot,
        float32, shape (batch, classes).

    Raises:
        ImportError: Grain is not installed.
        ValueError: There are fewer images than a batch takes, or the processes cannot share a batch evenly.

    Example:

        data = open_data("photos")
        recipe = get_recipe("finetune")
        model.fit(**fit_data(data, preprocessing_of(model), recipe), epochs=5)
    """
    epoch, step = start
    steps = len(data.train) // recipe.batch_size
    shard = (processes.index, processes.count)
    train = shuffled(
        data.train, preprocessing, recipe, seed=seed, start=epoch * steps + step, shard=shard, threads=threads
    )
    shared = {"batch_size": math.ceil(EVALUATION_BATCH / processes.devices) * processes.devices, "threads": threads}
    if processes.devices == 1:
        validation = in_order(data.validation, preprocessing, epochs=None, **shared)
    else:
        validation = in_equal_parts(data.validation, preprocessing, epochs=None, shard=shard, **shared)
    return {
        "x": for_fit(train),
        "validation_data": for_fit(validation),
        "steps_per_epoch": steps - step,
        "validation_steps": math.ceil(len(data.validation) / shared["batch_size"]),
        "initial_epoch": epoch,
        "shuffle": False,
    }


def shuffled(
    source: ImageSource,
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    seed: int,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Any:
    """Returns endless batches as described in `fit_data`.

    Args:
        source: The images.
        preprocessing: Size of the result, and resizing if the recipe has no random crop.
        recipe: The recipe, whose batch size and transforms are used.
        seed: See `fit_data`.
        start: First step, counted over all epochs.
        shard: The part of every batch to read here, and the number of parts.
        threads: Number of threads that read ahead.

    Returns:
        A Grain dataset of (images, labels).

    Raises:
        ValueError: There are fewer images than a batch takes, or the shards do not divide the batch evenly.
    """
    check_batches(source, recipe.batch_size)
    part, parts = shard
    share = _share(recipe.batch_size, parts)
    transforms = [_of_size(transform, preprocessing.height_width) for transform in recipe.transforms]
    crops = any(isinstance(transform, RandomAreaCrop) for transform in transforms)
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = source[index] if crops else fitted(source[index], preprocessing)
        for transform in transforms:
            image = transform(image, rng)
        return image, one_hot[source.labels[index]]

    def change(batch: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        for transform in recipe.batch_transforms:
            batch = transform(*batch, rng)
        return batch

    whole = len(source) // recipe.batch_size * recipe.batch_size
    dataset = _grain().MapDataset.source(_Indices(len(source))).seed(seed).shuffle()[:whole].random_map(read)
    dataset = dataset[part::parts].batch(share, drop_remainder=True)
    if recipe.batch_transforms:
        dataset = dataset.random_map(change)
    return _read_ahead(dataset.repeat()[start:], threads)


def _of_size(transform: Any, size: tuple[int, int]) -> Any:
    """Returns a transform whose result has the network's input size, unless it states its own."""
    if isinstance(transform, RandomAreaCrop) and transform.size is None:
        return dataclasses.replace(transform, size=size)
    return transform


def in_order(
    source: ImageSource,
    preprocessing: Preprocessing,
    *,
    batch_size: int = EVALUATION_BATCH,
    epochs: int | None = 1,
    threads: int = 2,
) -> Any:
    """Returns all images in order, resized and cropped for the network.

    Args:
        source: The images.
        preprocessing: Size, crop, and interpolation.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        epochs: Number of epochs; None repeats them endlessly.
        threads: Number of threads that read ahead.

    Returns:
        A Grain dataset of (images, labels) as in `fit_data`.
    """
    dataset = _grain().MapDataset.source(_Indices(len(source))).map(_reader(source, preprocessing))
    return _read_ahead(dataset.batch(batch_size).repeat(epochs), threads)


def in_equal_parts(
    source: ImageSource,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    epochs: int | None = 1,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Any:
    """Returns all images in order, for devices that share each batch evenly; images of weight 0 fill the last batch.

    With k batches of b for n images, the weight of every other image is k b / n. Keras averages the weighted loss over
    k b rows, and `weighted_metrics` over the weights, so both are exactly the means over the n images.

    Args:
        source: The images.
        preprocessing: Size, crop, and interpolation.
        batch_size: Images per batch, over all shards.
        epochs: Number of epochs; None repeats them endlessly.
        shard: The part of every batch to read here, and the number of parts.
        threads: Number of threads that read ahead.

    Returns:
        A Grain dataset of (images, labels, weights): the first two as in `fit_data`, weights
        of shape (batch,), float32.

    Raises:
        ValueError: The shards do not divide the batch evenly.
    """
    part, parts = shard
    share, images, labeled = _share(batch_size, parts), len(source), _reader(source, preprocessing)
    rows = -(-images // batch_size) * batch_size

    def read(row: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        return *labeled(min(row, images - 1)), np.float32(rows / images if row < images else 0.0)

    dataset = _grain().MapDataset.source(_Indices(rows)).map(read)
    return _read_ahead(dataset[part::parts].batch(share).repeat(epochs), threads)


def _share(batch_size: int, parts: int) -> int:
    if batch_size % parts:
        raise ValueError(f"{parts} processes must share a batch evenly; received batch_size={batch_size}.")
    return batch_size // parts


def _reader(source: ImageSource, preprocessing: Preprocessing) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """Returns a function from a position in the source to an image of the network's size and its one-hot label."""
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)
    return lambda index: (fitted(source[index], preprocessing), one_hot[source.labels[index]])


def _read_ahead(dataset: Any, threads: int) -> Any:
    options = _grain().ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return dataset.to_iter_dataset(options)


def for_fit(batches: Any) -> Any:
    """Returns batches in a form that `fit` reads without stalling.

    Keras on TensorFlow wraps a Grain dataset in `tf.data`, whose tuning thread sleeps for up to a minute. Keras waits
    for it whenever an iterator ends, that is, after every epoch and validation. Here the dataset is wrapped without
    that tuning. Other backends read Grain datasets directly.

    Args:
        batches: A Grain dataset of batches.

    Returns:
        A `tf.data.Dataset` on TensorFlow, else the same dataset.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), next(iter(batches))
    )

    def read() -> Iterator[Any]:
        try:
            yield from batches
        except Exception as error:
            failures.append(error)
            raise

    failures: list[Exception] = []
    dataset = tf.data.Dataset.from_generator(read, output_signature=signature).prefetch(2).with_options(options)
    dataset.reading_failures = failures
    return dataset


@contextlib.contextmanager
def reading_errors_kept(*datasets: Any) -> Iterator[None]:
    """Raises the error of an image that cannot be read as it is: `tf.data` makes an error of its own from the text.

    Args:
        datasets: Results of `for_fit`.

    Yields:
        Nothing.

    Raises:
        Exception: That error.
    """
    try:
        yield
    except Exception as error:
        failures = [one for dataset in datasets for one in getattr(dataset, "reading_failures", ())]
        if failures and type(error).__module__.startswith("tensorflow."):
            raise failures[-1] from None
        raise


def fitted(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Returns an image at a network's input size, resized and cropped if it has another size.

    Args:
        image: An RGB image, uint8, 0 to 255, shape (height, width, 3).
        preprocessing: Size, crop, and interpolation.

    Returns:
        An RGB image, uint8, 0 to 255, shape (*preprocessing.height_width, 3).
    """
    if image.shape[:2] == preprocessing.height_width:
        return image
    return preprocess(image, preprocessing)[0].astype(np.uint8)


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise missing_package("grain", "train", "Reading images for training") from error
    return grain
