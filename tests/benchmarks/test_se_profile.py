"""The operations that a runtime executes are sorted into kinds, whose times are compared with SE and without it."""

from __future__ import annotations

import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("profile_worker")


@pytest.mark.parametrize(
    ("operation", "shape", "kind"),
    [
        ("Convolution", (1, 64, 56, 56), "layers on maps"),
        ("QLinearConv", (1, 4, 1, 1), "layers on vectors"),
        ("FullyConnectedQuantizedLegacy", (1, 1000), "layers on vectors"),
        ("ReduceMean", (1, 64, 1, 1), "means"),
        ("GlobalAveragePool", (1, 64, 1, 1), "means"),
        ("ReorderOutput", (1, 64, 1, 1), "conversions"),
        ("QuantizeLinear", (1, 64, 56, 56), "conversions"),
        ("Subgraph", (1, 64, 56, 56), "elementwise"),
        ("Mul", (1, 64, 56, 56), "elementwise"),
        ("MaxPool", (1, 64, 56, 56), "others"),
        ("Softmax", (1, 1000), "others"),
    ],
)
def test_kinds_of_operations(operation, shape, kind, worker):
    assert worker.kind_of(worker.Node("", operation, shape, 1.0)) == kind


def test_a_kind_takes_the_sum_of_the_medians_of_its_operations(worker):
    times = {"first": (1.0, 2.0, 9.0), "second": (10.0, 10.0, 10.0)}
    nodes = [worker.Node(name, "Mul", (1, 8), time) for name, taken in times.items() for time in taken]
    means = [worker.Node("squeeze", "ReduceMean", (1, 8), 5.0)]
    assert worker.by_kind(nodes + means) == {"elementwise": 12.0, "means": 5.0, "all": 17.0}


def test_costs_of_se(worker):
    profile = importlib.import_module("se_profile")
    with_se = [{"means": 3000.0, "layers on maps": 9000.0, "all": 12000.0}] * 2 + [{"means": 9e9, "all": 9e9}]
    found = profile.costs(with_se, [{"layers on maps": 8000.0, "all": 8000.0}] * 3)
    assert found == {"without_se": 8.0, "means": 3.0, "layers on maps": 1.0, "all": 4.0}
