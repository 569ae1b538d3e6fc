"""Batches of images in a fixed order, for training, for evaluation, and for `fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from se_keras.errors import missing_package
from se_keras.images.record import Preprocessing
from se_keras.preprocessing import preprocess
from se_keras.training.augment import BatchTransform, RandomAreaCrop, Transform
from se_keras.training.sources import ImageSource


class _Indices:
    """The positions of a source, for Grain to read, so that images are decoded only when they are needed."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        return int(index)


def check_batches(source: ImageSource, batch_size: int) -> None:
    """Checks in advance whether `training_batches` can make batches.

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


def training_batches(
    source: ImageSource,
    prepared: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    transforms: Sequence[Transform] = (),
    batch_transforms: Sequence[BatchTransform] = (),
    epochs: int = 1,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Any:
    """Returns shuffled, augmented batches in an order determined by the seed alone.

    Each epoch has its own order and its own augmentation; images that do not fill a whole batch are
    left out of that epoch. The pixels of step k are the same whatever was read before, with any
    number of threads, and on every backend.

    Args:
        source: The images.
        prepared: The size (and, without a random crop among the transforms, the resizing) of the result.
        batch_size: Images per batch, over all shards.
        seed: An integer, at least 0.
        transforms: Transforms of each image, in order.
        batch_transforms: Transforms of each batch and its one-hot labels.
        epochs: Number of epochs.
        start: First step, counted over all epochs.
        shard: The part of every batch to read here, and the number of parts.
        threads: Number of threads that read ahead.

    Returns:
        A Grain dataset of (images, labels): images of shape (batch, height, width, 3), uint8 (float32 after
        mixup), and one-hot labels of shape (batch, classes), float32.

    Raises:
        ValueError: There are fewer images than a batch takes, or the shards do not divide the batch evenly.
    """
    check_batches(source, batch_size)
    grain = _grain()
    part, parts = shard
    if batch_size % parts:
        raise ValueError(f"{parts} processes must share a batch evenly; received batch_size={batch_size}.")
    size = prepared.height_width
    crops = any(isinstance(transform, RandomAreaCrop) for transform in transforms)
    steps = [
        dataclasses.replace(transform, size=size)
        if isinstance(transform, RandomAreaCrop) and transform.size is None
        else transform
        for transform in transforms
    ]
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = source[index]
        if not crops:
            image = fitted(image, prepared)
        for step in steps:
            image = step(image, rng)
        return image, one_hot[source.labels[index]]

    def change(batch: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        images, labels = batch
        for step in batch_transforms:
            images, labels = step(images, labels, rng)
        return images, labels

    whole = len(source) // batch_size * batch_size
    dataset = grain.MapDataset.source(_Indices(len(source))).seed(seed).shuffle()[:whole].random_map(read)
    dataset = dataset[part::parts].batch(batch_size // parts, drop_remainder=True)
    if batch_transforms:
        dataset = dataset.random_map(change)
    dataset = dataset.repeat(epochs)[start:]
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def evaluation_batches(
    source: ImageSource, prepared: Preprocessing, *, batch_size: int = 128, epochs: int = 1, threads: int = 2
) -> Any:
    """Returns all images in order, resized and cropped for the network.

    Args:
        source: The images.
        prepared: Size, crop, and interpolation.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        epochs: Number of epochs.
        threads: Number of threads that read ahead.

    Returns:
        A Grain dataset of (images, labels) as in `training_batches`.
    """
    grain = _grain()
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        return fitted(source[index], prepared), one_hot[source.labels[index]]

    dataset = grain.MapDataset.source(_Indices(len(source))).map(read).batch(batch_size).repeat(epochs)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def evaluation_parts(
    source: ImageSource,
    prepared: Preprocessing,
    *,
    batch_size: int,
    epochs: int = 1,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Any:
    """Returns all images in order, for devices that share each batch evenly; images of weight 0 fill the last batch.

    With k batches of b for n images, the weight of every other image is k b / n. Keras averages the weighted loss over
    k b rows, and `weighted_metrics` over the weights, so both are exactly the means over the n images.

    Args:
        source: The images.
        prepared: Size, crop, and interpolation.
        batch_size: Images per batch, over all shards.
        epochs: Number of epochs.
        shard: The part of every batch to read here, and the number of parts.
        threads: Number of threads that read ahead.

    Returns:
        A Grain dataset of (images, labels, weights): the first two as in `training_batches`, weights
        of shape (batch,), float32.

    Raises:
        ValueError: The shards do not divide the batch evenly.
    """
    grain = _grain()
    part, parts = shard
    if batch_size % parts:
        raise ValueError(f"{parts} processes must share a batch evenly; received batch_size={batch_size}.")
    images = len(source)
    rows = -(-images // batch_size) * batch_size
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(row: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        index = min(row, images - 1)
        weight = np.float32(rows / images if row < images else 0.0)
        return fitted(source[index], prepared), one_hot[source.labels[index]], weight

    dataset = grain.MapDataset.source(_Indices(rows)).map(read)[part::parts].batch(batch_size // parts).repeat(epochs)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def for_fit(batches: Any) -> Any:
    """Returns batches in a form that `fit` reads without stalling.

    Keras on TensorFlow wraps a Grain dataset in `tf.data`, whose tuning thread sleeps for up to a minute. Keras waits
    for it whenever an iterator ends, that is, after every epoch and validation. Here the dataset is wrapped without
    that tuning. Other backends read Grain datasets directly.

    Args:
        batches: A dataset that the functions above return.

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
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    return dataset.prefetch(2).with_options(options)


def fitted(image: np.ndarray, prepared: Preprocessing) -> np.ndarray:
    """Returns an image at a network's input size, resized and cropped if it has another size.

    Args:
        image: An RGB image, uint8, 0 to 255, shape (height, width, 3).
        prepared: Size, crop, and interpolation.

    Returns:
        An RGB image, uint8, 0 to 255, shape (*prepared.height_width, 3).
    """
    if image.shape[:2] == prepared.height_width:
        return image
    return preprocess(image, prepared)[0].astype(np.uint8)


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise missing_package("grain", "train", "Reading images for training") from error
    return grain
