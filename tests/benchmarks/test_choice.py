"""The figure and the table of recommended networks say what the records say."""

from __future__ import annotations

import importlib
import pathlib

import pytest

from se_keras.catalog import known_builders
from se_keras.weights.published import DEFAULT_TAGS

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def choice(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("choice")


@pytest.fixture
def recommended(choice):
    return {one.use: known_builders()[one.builder] for one in choice.RECOMMENDATIONS}


def test_every_network_of_the_figure_has_a_family(choice):
    assert {choice.family_of(record.model) for record in choice.default_weights()} == set(choice.FAMILIES)
    assert choice.LABELS.keys() <= DEFAULT_TAGS.keys()
    assert choice.TIMED_LABELS.keys() == choice.int8_milliseconds().keys()


def test_reasons_in_the_table_are_true(choice, recommended):
    records = {record.model: record for record in choice.default_weights()}
    limits = {
        "Phone": lambda one: one.macs <= 300e6,
        "Phone, tiny": lambda one: one.macs <= 100e6,
        "Highest accuracy": lambda one: one.parameters <= 300e6,
    }
    for use, within in limits.items():
        best = max(filter(within, records.values()), key=lambda one: one.top1)
        assert recommended[use] == best.model
    assert round(records[recommended["Browser"]].parameters * 2 / 1e6) == 11  # two bytes each in fp16
    ratio = records[recommended["Highest accuracy"]].macs / records[recommended["Server GPU"]].macs
    assert round(ratio) == 6
    assert "21k" in records[recommended["Few photos of your own"]].tag


def test_table_in_the_documentation_is_current(choice):
    assert choice.table() in choice.PAGE.read_text("utf-8")
