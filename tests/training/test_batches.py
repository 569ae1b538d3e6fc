"""In which order images are read: by the seed alone, from any step, in shards, and all of them in an evaluation."""

import numpy as np
import pytest

from se_keras.images.record import Preprocessing
from se_keras.training.augment import PadAndCrop, RandomAreaCrop, RandomFlip
from se_keras.training.batches import evaluation_batches, training_batches
from se_keras.training.sources import ArraySource, load_sample

SMALL = Preprocessing(size=16)


def source(count=40):
    sample = load_sample()
    return ArraySource(sample.x_train[:count], sample.y_train[:count], sample.class_names)


def read(dataset):
    images, labels = zip(*dataset, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_order_and_pixels_depend_on_the_seed_alone():
    options = {"batch_size": 8, "transforms": (PadAndCrop(), RandomFlip()), "epochs": 2}
    first = read(training_batches(source(), SMALL, seed=1, threads=1, **options))
    again = read(training_batches(source(), SMALL, seed=1, threads=4, **options))
    other = read(training_batches(source(), SMALL, seed=2, **options))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[1][:40], first[1][40:])  # another order in the second epoch
    assert first[1].sum(axis=0).tolist() == (2 * np.bincount(source().labels, minlength=10)).tolist()


@pytest.mark.parametrize("start", [3, 5, 7])
def test_reading_can_begin_at_any_step(start):
    options = {"batch_size": 8, "seed": 0, "transforms": (RandomFlip(),), "epochs": 2}
    whole = read(training_batches(source(), SMALL, **options))
    part = read(training_batches(source(), SMALL, start=start, **options))
    np.testing.assert_array_equal(whole[0][8 * start :], part[0])


def test_shards_are_the_parts_of_the_same_batches():
    options = {"batch_size": 8, "seed": 0, "transforms": (RandomFlip(),), "epochs": 2}
    whole = list(training_batches(source(), SMALL, **options))
    shards = [list(training_batches(source(), SMALL, shard=(part, 2), **options)) for part in range(2)]
    for (images, _), (first, _), (second, _) in zip(whole, *shards, strict=True):
        assert {row.tobytes() for row in images} == {row.tobytes() for row in np.concatenate([first, second])}
    with pytest.raises(ValueError, match="3 processes must share a batch evenly; received batch_size=8"):
        training_batches(source(), SMALL, shard=(0, 3), **options)


def test_crops_are_of_the_networks_size():
    images, _ = next(
        iter(
            training_batches(
                source(), Preprocessing(size=(20, 24)), batch_size=4, seed=0, transforms=(RandomAreaCrop(),)
            )
        )
    )
    assert images.shape == (4, 20, 24, 3)


def test_evaluation_reads_everything_once_in_order():
    images, labels = read(evaluation_batches(source(30), Preprocessing(size=32), batch_size=8))
    np.testing.assert_array_equal(images, load_sample().x_train[:30])
    np.testing.assert_array_equal(labels.argmax(axis=1), load_sample().y_train[:30])
