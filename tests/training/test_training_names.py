"""What `se_keras.training` offers by its own name, and what it does not need for that."""

import pytest

from se_keras import training


def test_names_exist():
    assert {"train", "open_data", "get_recipe", "RECIPES", "Recipe", "Phase", "evaluate"} <= set(training.__all__)
    assert all(callable(getattr(training, name)) for name in training.__all__ if name != "RECIPES")


@pytest.mark.slow
def test_reading_is_not_needed_before_a_training(run_warm):
    assert run_warm("import sys, se_keras.training; print('grain' in sys.modules)").strip() == "False"
