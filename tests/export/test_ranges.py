"""The ranges of 8-bit tensors: error of images, relative to their own signal."""

import numpy as np
import pytest

from se_keras.export.ranges import (
    Observed,
    best_range,
    best_symmetric_range,
    closest,
    compared,
    hard_swish,
    identity,
    sigmoid,
    swish,
)


def relative_error(values, low, high, response=identity):
    """Mean error of an image after rounding to 255 steps, relative to its signal."""
    step = (high - low) / 255
    rounded = np.round(np.clip(values, low, high) / step) * step
    error = np.square(response(rounded) - response(values)).sum(1)
    return float((error / np.square(response(values)).sum(1)).mean())


@pytest.fixture
def images():
    """One image of 50 is a hundred times as bright as the others."""
    values = np.random.default_rng(0).normal(size=(50, 500))
    values[7] *= 100
    return values


def test_one_bright_image_does_not_coarsen_the_others(images):
    low, high = best_range(images, images.min(), images.max())
    assert -50 < low < -3
    assert 3 < high < 50
    assert relative_error(images, low, high) < 0.2 * relative_error(images, images.min(), images.max())


def test_a_range_stays_that_of_all_values_where_cutting_pays_nothing():
    values = np.random.default_rng(0).uniform(0, 4, (50, 500))
    assert best_range(values, 0.0, 4.0) == (0.0, 4.0)
    assert best_range(values + 1, 1.0, 5.0) == (0.0, 5.0)


def test_a_symmetric_range_is_the_best_of_its_kind_and_starts_at_zero_without_negative_values(images):
    low, high = best_symmetric_range(images, images.min(), images.max())
    assert low == -high
    assert 3 < high < 50
    assert relative_error(images, low, high) < 0.2 * relative_error(images, images.min(), images.max())
    positive = np.abs(images)
    assert best_symmetric_range(positive, 0.0, positive.max()) == best_range(positive, 0.0, positive.max())


@pytest.mark.parametrize("response", [hard_swish, swish, sigmoid])
def test_steps_are_not_spent_where_the_function_that_reads_the_tensor_is_flat(response):
    values = np.random.default_rng(0).uniform(-40, 5, (50, 500))
    low, high = best_range(values, -40.0, 5.0, response=response)
    assert -14 < low <= -2
    assert high == 5.0
    assert relative_error(values, low, high, response) < 0.2 * relative_error(values, -40.0, 5.0, response)


def test_an_image_without_any_signal_and_a_constant_tensor_have_a_range():
    assert best_range(np.zeros((3, 5)), 0.0, 0.0) == (0.0, 0.0)
    values = np.ones((3, 5)) * [[0.0], [1.0], [2.0]]
    assert best_range(values, 0.0, 2.0) == (0.0, 2.0)


def test_observed_extremes_are_those_of_all_values_though_only_a_sample_is_kept():
    observed = Observed(seed=0)
    for image in np.arange(20_000.0).reshape(2, 100, 100):
        observed.add(image)
    assert observed.range_of_all() == (0.0, 19_999.0)
    assert observed.is_finite
    observed.add(np.array([np.nan]))
    assert not observed.is_finite


def test_the_candidate_with_the_smallest_error_is_taken_and_a_broken_one_never():
    right = [np.ones((2, 3)), np.full((2, 1), 100.0)]
    outputs = {
        "far": [right[0] + 0.5, right[1]],
        "near": [right[0], right[1] + 20],  # 20 of 100 are less than 0.5 of 1
        "broken": [right[0] * np.nan, right[1]],
    }
    assert closest(["broken", "far", "near"], outputs.get, lambda: right) == "near"
    assert closest(["broken"], pytest.fail, pytest.fail) == "broken"


def test_no_candidate_is_tried_after_one_that_is_close():
    outputs = {"far": [np.full((2, 3), 1.5)], "close": [np.full((2, 3), 1.09)]}
    assert closest(["far", "close", "never made"], outputs.__getitem__, lambda: [np.ones((2, 3))]) == "close"


def test_several_outputs_are_close_if_they_are_so_on_average():
    right = [np.ones((2, 3)), np.ones((2, 3))]
    outputs = {"close": [np.full((2, 3), 1.09)] * 2}
    assert closest(["close", "never made"], outputs.__getitem__, lambda: right) == "close"


def test_one_sample_with_a_large_error_does_not_outweigh_all_others():
    right = np.ones((10, 2))
    outlier, spread = right.copy(), right + 0.2
    outlier[3] += 1
    assert closest(["spread", "outlier"], {"spread": [spread], "outlier": [outlier]}.__getitem__, lambda: [right]) == (
        "outlier"
    )


@pytest.mark.parametrize(("count", "rows", "expected"), [(1, 1, 1), (50, 1, 50), (200, 1, 64), (50, 4, 16)])
def test_samples_for_the_comparison_are_spread_over_all(count, rows, expected):
    places = compared(count, rows)
    assert len(set(places)) == expected
    assert (places[0], places[-1]) == (0, count - 1)


@pytest.mark.parametrize("value", [0.0, 1e-40])
def test_a_tensor_that_is_always_0_has_steps(value):
    observed = Observed(seed=0)
    observed.add(np.full((1, 4, 4, 3), value, "float32"))
    assert observed.ranges() == ((0.0, 1.0), (0.0, 1.0))
