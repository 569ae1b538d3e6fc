"""A few of many items: evenly spaced, with both ends."""

import pytest

from se_keras.spacing import evenly


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(0, 5, []), (3, 50, [0, 1, 2]), (3, 3, [0, 1, 2]), (5, 0, []), (5, 1, [4]), (5, 2, [0, 4]), (10, 4, [0, 3, 6, 9])],
)
def test_indices_span_all_items(count, most, expected):
    assert evenly(count, most) == expected


def test_no_index_comes_twice():
    for count in range(2, 60):
        for most in range(2, 60):
            chosen = evenly(count, most)
            assert len(set(chosen)) == len(chosen) == min(count, most)
            assert (chosen[0], chosen[-1]) == (0, count - 1)
