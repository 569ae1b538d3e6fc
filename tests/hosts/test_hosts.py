"""Networks that others wrote get SE blocks, train, and go through all the rest, as the table in `hosts.json` says."""

from __future__ import annotations

import functools
import importlib.util

import pytest
import regenerate
from cases import ALL
from examination import FORMATS, Subject, examine, examine_exports
from hosts import HOSTS, package_of

EXPECTED = regenerate.read_expected()
# These stand for the others, which SE_KERAS_ALL_NETWORKS=1 (`make test-all`) tests as well.
IN_CI = (
    *("keras/MobileNetV3Small", "keras_hub/ResNet", "keras_hub/ImageClassifier", "kimm/LCNet035"),
    *("users/CBAM", "users/GhostNet", "users/Attention U-Net", "users/U-Net", "users/audio", "users/image and table"),
    "users/own train_step",
)
QUICK = ("users/ResNet", "users/SE of operations", "users/text")
TESTED = [name for name in EXPECTED if ALL or name in (*QUICK, *IN_CI)]


@functools.lru_cache(maxsize=1)
def subject(name):
    """The network, for all tests of it: they follow one another."""
    package = package_of(name)
    if package and not importlib.util.find_spec(package):
        pytest.skip(f"needs {package}: pip install 'se_keras[hosts]'")
    return Subject(HOSTS[name])


def rows(names):
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", rows(TESTED))
def test_a_network_becomes_what_the_table_says(name, tmp_path):
    expected = {check: value for check, value in EXPECTED[name].items() if check != "exports"}
    assert examine(subject(name), tmp_path) == expected


EXPORTED = TESTED if ALL else QUICK


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPORTED if "exports" in EXPECTED[name]])
def test_a_network_becomes_the_files_that_the_table_says(name, tmp_path):
    assert examine_exports(subject(name), tmp_path, FORMATS) == EXPECTED[name]["exports"]


def test_the_rows_are_of_networks_in_their_order():
    assert list(EXPECTED) == [name for name in HOSTS if name in EXPECTED]
    assert set(QUICK) < set(EXPECTED)


def test_the_documentation_has_the_table():
    assert regenerate.table(EXPECTED) in regenerate.PAGE.read_text("utf-8")
