"""The shared messages name what was received and what would do."""

from __future__ import annotations

import pytest

from se_keras.errors import check_count, missing_package, one_of


def test_one_of_returns_a_value_among_the_options():
    assert one_of("colour", "red", ["red", "green"]) == "red"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rad", r"^Unknown colour 'rad'\. Did you mean 'red'\? Options: 'red', 'green'\.$"),
        ("blue", r"^Unknown colour 'blue'\. Options: 'red', 'green'\.$"),
        (None, r"^Unknown colour None\. Options: 'red', 'green'\.$"),
        (["red"], r"^Unknown colour \['red'\]\.(.*) Options: 'red', 'green'\.$"),
    ],
)
def test_one_of_refuses_with_the_closest(value, message):
    with pytest.raises(ValueError, match=message):
        one_of("colour", value, ("red", "green"))


def test_one_of_takes_an_iterator_and_says_when_there_is_nothing():
    assert one_of("colour", "red", iter(["red"])) == "red"
    with pytest.raises(ValueError, match=r"Unknown colour 'red'\. Options: \(none exist\)\."):
        one_of("colour", "red", ())


def test_check_count():
    check_count("n", 1)
    for value in (0, -1, 1.0, True, "1", None):
        with pytest.raises(ValueError, match=r"^`n` must be an integer of at least 1; received n="):
            check_count("n", value)


def test_missing_package_names_the_extra():
    error = missing_package("matplotlib", "plots", "Drawing gates")
    assert isinstance(error, ImportError)
    assert str(error) == (
        "Drawing gates needs the package 'matplotlib'. Install it with: pip install 'se_keras[plots]'"
    )
