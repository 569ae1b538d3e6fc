"""The newer networks have timm's tensors: the same names, shapes, and number of parameters."""

from __future__ import annotations

import json
import math
import os
import pathlib

import keras
import pytest
from formula import digest_of_shapes

from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.convert import expected_tensors
from se_keras.weights.published import RECORDS

TENSORS = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "timm_tensors.json").read_text())["networks"]
FAMILIES = {record.model: record.family for record in RECORDS.values() if record.model in TENSORS}

# One network of each rule for widths, depths, units, and stems; SE_KERAS_ALL_NETWORKS=1 tests all (six minutes).
QUICK = ("mobilenetv3_small_050", "regnety_002", "tinynet_e")
VARIANTS = (
    "efficientnet_b1",
    "efficientnet_b2",
    "efficientnetv2_rw_m",
    "fbnetv3_b",
    "lcnet_075",
    "mobilenetv3_large_150d",
    "regnety_008",
    "regnety_008_tv",
    "regnety_320",
    "resnetrs50",
    "semnasnet_075",
    "seresnextaa101d_32x8d",
    "tf_efficientnet_b5",
    "tf_efficientnetv2_b3",
    "tf_efficientnetv2_m",
    "tf_mobilenetv3_large_075",
    "tinynet_c",
)
TESTED = sorted(TENSORS) if os.environ.get("SE_KERAS_ALL_NETWORKS") else (*QUICK, *VARIANTS)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in TESTED]
)
def test_tensors_are_timms(name):
    model = assemble(name, NETWORKS[name], Options())
    shapes = expected_tensors(model, FAMILIES[name])
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == TENSORS[name]["parameters"]
    assert len(shapes) == TENSORS[name]["tensors"]
    assert digest_of_shapes(shapes) == TENSORS[name]["digest"]
    keras.utils.clear_session()


def test_every_record_states_timms_number_of_parameters():
    stated = {record.model: record.parameters for record in RECORDS.values() if record.model in TENSORS}
    assert stated == {name: facts["parameters"] for name, facts in TENSORS.items()}
