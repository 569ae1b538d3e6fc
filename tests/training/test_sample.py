"""The bundled images."""

import importlib.resources

import numpy as np

from se_keras.training.sources import load_sample


def test_sample_has_every_class_equally():
    sample = load_sample()
    assert sample.x_train.shape == (1000, 32, 32, 3)
    assert sample.x_test.shape == (500, 32, 32, 3)
    assert sample.x_train.dtype == sample.x_test.dtype == np.uint8
    assert np.bincount(sample.y_train).tolist() == [100] * 10
    assert np.bincount(sample.y_test).tolist() == [50] * 10
    assert sample.class_names[0] == "airplane"
    assert len(sample.class_names) == 10
    assert "CIFAR-10" in sample.source


def test_sample_holds_the_pixels_of_cifar10():
    # The first training image of the full set is a frog; its first and last pixels are known.
    sample = load_sample()
    frog = sample.x_train[0]
    assert sample.class_names[sample.y_train[0]] == "frog"
    assert frog[0, 0].tolist() == [59, 62, 63]
    assert frog[31, 31].tolist() == [123, 92, 72]


def test_sample_is_small_enough_to_ship():
    file = importlib.resources.files("se_keras").joinpath("data/cifar10_sample.npz")
    assert len(file.read_bytes()) <= 5e6
