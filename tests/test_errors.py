"""The shared messages name what was received and what would do."""

from __future__ import annotations

import numpy as np
import pytest

from se_keras.errors import (
    check_count,
    check_count_or_none,
    check_normalization,
    check_number,
    missing_package,
    one_of,
    refuse_tf_keras,
)


def test_one_of_returns_a_value_among_the_options():
    assert one_of("color", "red", ["red", "green"]) == "red"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rad", r"^Unknown color 'rad'\. Did you mean 'red'\? Options: 'red', 'green'\.$"),
        ("blue", r"^Unknown color 'blue'\. Options: 'red', 'green'\.$"),
        (None, r"^Unknown color None\. Options: 'red', 'green'\.$"),
        (["red"], r"^Unknown color \['red'\]\.(.*) Options: 'red', 'green'\.$"),
    ],
)
def test_one_of_refuses_with_the_closest(value, message):
    with pytest.raises(ValueError, match=message):
        one_of("color", value, ("red", "green"))


def test_one_of_takes_an_iterator_and_says_when_there_is_nothing():
    assert one_of("color", "red", iter(["red"])) == "red"
    with pytest.raises(ValueError, match=r"Unknown color 'red'\. Options: \(none exist\)\."):
        one_of("color", "red", ())


def test_one_of_lists_many_options_only_if_none_is_close():
    options = [f"network_{number}" for number in range(40)]
    with pytest.raises(ValueError, match=r"^Unknown model 'Network_7'\. Did you mean 'network_7' or [^?]*\?$"):
        one_of("model", "Network_7", options)
    with pytest.raises(ValueError, match=r"Options: 'network_0', .*'network_29', and 10 others\.$"):
        one_of("model", "x", options)


def test_check_count():
    for value in (1, np.int64(1), np.uint8(1), np.arange(2).max()):
        assert type(check_count("n", value)) is int
    assert check_count("n", 0, least=0) == 0
    for value in (0, -1, 1.0, np.float32(1), True, np.bool_(True), "1", None, np.array([1])):
        with pytest.raises(ValueError, match=r"^`n` must be an integer of at least 1; received n="):
            check_count("n", value)


def test_check_count_or_none():
    assert check_count_or_none("n", None) is None
    assert check_count_or_none("n", np.int64(2)) == 2
    for value in (0, True, 1.0, "2"):
        with pytest.raises(ValueError, match=r"^`n` must be None or an integer of at least 1; received n="):
            check_count_or_none("n", value)


def test_check_normalization():
    check_normalization((0.5,), (0.1,))
    for mean, std in [((), ()), ((0.5,), (0.1, 0.1)), ((0.5,), (0.0,)), ((0.5,), (float("nan"),))]:
        with pytest.raises(ValueError, match="one number per channel, `std` above 0; received"):
            check_normalization(mean, std)


def test_check_number():
    for value in (0, 0.5, np.float32(1), np.int64(1)):
        assert type(check_number("n", value, least=0, most=1)) is float
    for value in (-1, 1.5, float("nan"), True, "1", None):
        with pytest.raises(ValueError, match=r"^`n` must be a finite number of at least 0 and at most 1; received n="):
            check_number("n", value, least=0, most=1)
    for value in (0, float("inf")):
        with pytest.raises(ValueError, match=r"^`n` must be a finite number above 0; received n="):
            check_number("n", value, above=0)


def test_missing_package_names_the_extra():
    error = missing_package("matplotlib", "plots", "Drawing gates")
    assert isinstance(error, ImportError)
    assert str(error) == (
        "Drawing gates needs the package 'matplotlib'. Install it with: pip install 'se_keras[plots]'"
    )


def test_refuse_tf_keras_tells_classes_by_their_module():
    old = type("Functional", (), {"__module__": "tf_keras.src.engine.functional", "name": "old"})
    with pytest.raises(ValueError, match=r"The model 'old' is from tf_keras \(Keras 2\)"):
        refuse_tf_keras(type("Own", (old,), {})())
    refuse_tf_keras("a path")
