"""The newer networks have timm's tensors and multiply-adds: the same names, shapes, and numbers."""

from __future__ import annotations

import json
import math
import pathlib

import keras
import pytest
from cases import NEWER, NEWER_QUICK, NEWER_TESTED, networks
from formula import digest_of_shapes

from se_keras import model_info
from se_keras.catalog import known_networks
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.convert import expected_tensors
from se_keras.weights.published import RECORDS

TENSORS = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "timm_tensors.json").read_text())["networks"]
FAMILIES = {record.model: record.family for record in RECORDS.values() if record.model in TENSORS}


@pytest.mark.parametrize("name", networks(NEWER_TESTED, NEWER_QUICK))
def test_tensors_and_multiply_adds_are_timms(name):
    model = assemble(name, NETWORKS[name], Options(input_shape=(224, 224, 3)))
    shapes = expected_tensors(model, FAMILIES[name])
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == TENSORS[name]["parameters"]
    assert len(shapes) == TENSORS[name]["tensors"]
    assert digest_of_shapes(shapes) == TENSORS[name]["digest"]
    assert model_info(model).total.macs == TENSORS[name]["macs"]  # of every convolution and dense layer, at 224x224
    keras.utils.clear_session()


def test_every_record_states_timms_number_of_parameters():
    records = [record for record in RECORDS.values() if record.model in TENSORS and record.classes is None]
    stated = {record.model: record.parameters for record in records}
    assert stated == {name: facts["parameters"] for name, facts in TENSORS.items()}


@pytest.mark.parametrize("name", NEWER)
def test_catalog_states_timms_numbers(name):
    facts = known_networks()[name]
    assert facts.parameters == TENSORS[name]["parameters"]
    if facts.size == 224:
        assert facts.macs == TENSORS[name]["macs"]


def test_every_newer_network_is_on_record():
    assert set(TENSORS) == set(NEWER)
