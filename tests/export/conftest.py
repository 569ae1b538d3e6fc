"""What the tests of exports share."""

import keras
import pytest

import se_keras


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return se_keras.SEResNet20()
