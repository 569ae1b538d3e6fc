"""The names and shapes of every network's variables are those on record: checkpoints rest on them."""

from __future__ import annotations

import json
import pathlib

import pytest
from cases import PAPER, PAPER_TESTED, networks

from se_keras.catalog import known_networks

FOLDER = pathlib.Path(__file__).parents[1] / "goldens" / "trees"


def differences(expected, found):
    lines = [f"- {path} {expected[path]}" for path in expected if path not in found]
    lines += [f"+ {path} {found[path]}" for path in found if path not in expected]
    both = [path for path in expected if path in found and expected[path] != found[path]]
    return lines + [f"! {path} {expected[path]} -> {found[path]}" for path in both]


@pytest.mark.parametrize("name", networks(PAPER_TESTED))
def test_variables_are_those_on_record(name, built):
    golden = json.loads((FOLDER / f"{name}.json").read_text())
    network = built(name)
    lines = differences(golden["variables"], network.tree)
    command = f"If the change is meant, run: python tests/goldens/regenerate_trees.py {name}"
    assert not lines, "\n".join([f"{name}: {len(lines)} variables differ", *lines[:20], command])
    assert list(network.tree) == list(golden["variables"]), f"{name}: the variables are in another order. {command}"
    assert network.trainable + network.non_trainable == golden["total"]
    facts = known_networks()[name]
    assert (network.trainable, network.info.total.macs) == (facts.parameters, facts.macs)


def test_every_network_has_a_record_and_every_record_a_network():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(PAPER)


def test_differences_are_found():
    expected = {"a/kernel": [1, 2], "b/bias": [3], "c/gamma": [4]}
    found = {"a/kernel": [2, 1], "c/gamma": [4], "d/beta": [4]}
    assert differences(expected, found) == ["- b/bias [3]", "+ d/beta [4]", "! a/kernel [1, 2] -> [2, 1]"]
    assert differences(expected, expected) == []
