"""In which order images are read: by the seed alone, from any step, in shards, and all of them in an evaluation."""

import itertools

import numpy as np
import pytest

from se_keras.images.record import Preprocessing
from se_keras.training.augment import PadAndCrop, RandomAreaCrop, RandomFlip
from se_keras.training.batches import in_order, shuffled
from se_keras.training.recipes import Phase, Recipe
from se_keras.training.sources import ArraySource, load_sample

SMALL = Preprocessing(size=16)
EPOCHS, STEPS = 2, 5


def source(count=40):
    sample = load_sample()
    return ArraySource(sample.x_train[:count], sample.y_train[:count], sample.class_names)


def recipe(*transforms):
    phases = (Phase(epochs=EPOCHS, learning_rate=0.1),)
    return Recipe(name="test", phases=phases, batch_size=8, transforms=transforms, source="these tests")


def batches(*transforms, start=0, **options):
    endless = shuffled(source(), SMALL, recipe(*transforms), start=start, **options)
    return list(itertools.islice(endless, EPOCHS * STEPS - start))


def joined(dataset):
    images, labels = zip(*dataset, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_order_and_pixels_depend_on_the_seed_alone():
    transforms = (PadAndCrop(), RandomFlip())
    first = joined(batches(*transforms, seed=1, threads=1))
    again = joined(batches(*transforms, seed=1, threads=4))
    other = joined(batches(*transforms, seed=2))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[1][:40], first[1][40:])  # another order in the second epoch
    assert first[1].sum(axis=0).tolist() == (2 * np.bincount(source().labels, minlength=10)).tolist()


@pytest.mark.parametrize("start", [3, 5, 7])
def test_reading_can_begin_at_any_step(start):
    whole = joined(batches(RandomFlip(), seed=0))
    part = joined(batches(RandomFlip(), seed=0, start=start))
    np.testing.assert_array_equal(whole[0][8 * start :], part[0])


def test_shards_are_the_parts_of_the_same_batches():
    whole = batches(RandomFlip(), seed=0)
    shards = [batches(RandomFlip(), seed=0, shard=(part, 2)) for part in range(2)]
    for (images, _), (first, _), (second, _) in zip(whole, *shards, strict=True):
        assert {row.tobytes() for row in images} == {row.tobytes() for row in np.concatenate([first, second])}
    with pytest.raises(ValueError, match="3 processes must share a batch evenly; received batch_size=8"):
        batches(RandomFlip(), seed=0, shard=(0, 3))


def test_crops_are_of_the_networks_size():
    images, _ = next(iter(shuffled(source(), Preprocessing(size=(20, 24)), recipe(RandomAreaCrop()), seed=0)))
    assert images.shape == (8, 20, 24, 3)


def test_evaluation_reads_everything_once_in_order():
    images, labels = joined(in_order(source(30), Preprocessing(size=32), batch_size=8))
    np.testing.assert_array_equal(images, load_sample().x_train[:30])
    np.testing.assert_array_equal(labels.argmax(axis=1), load_sample().y_train[:30])
