"""Preprocessing in three steps, each against timm's: file to array, array to logits, file to top 5.

The goldens are written by tests/goldens/regenerate_preprocessing.py.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from formula import fill, thin_image
from small_networks import answers

import se_keras
from se_keras.class_names import imagenet_classes
from se_keras.images.record import Preprocessing
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.preprocessing import preprocess
from se_keras.weights.convert import assign, convert, expected_tensors
from se_keras.weights.published import RECORDS

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
PHOTO = GOLDENS / "photo.jpg"
FAMILIES = {"legacy_seresnet18": ("timm_legacy", "legacy"), "seresnet18": ("timm", "timm")}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDENS / "preprocessing.npz") as stored:
        return dict(stored)


def cases(golden) -> dict[tuple[int, float, str], np.ndarray]:
    keys = [key for key in golden if key.count("/") == 2]
    return {(int(size), float(crop), how): golden[key] for key in keys for size, crop, how in [key.split("/")]}


def test_every_preprocessing_in_use_has_a_golden(golden):
    prepared = [record.preprocessing for record in RECORDS.values() if record.family.startswith("timm")]
    used = {(record.size, record.crop, record.interpolation) for record in prepared}
    assert used == set(cases(golden))


def test_file_to_array(golden):
    for (size, crop, interpolation), expected in cases(golden).items():
        record = Preprocessing(size=size, crop=crop, interpolation=interpolation)
        difference = np.abs(thin_image(preprocess(PHOTO, record)[0]) - expected)
        assert difference.mean() <= 1, record
        assert difference.max() <= 3, record


@pytest.fixture(scope="module", params=FAMILIES)
def trained(request):
    family, lineage = FAMILIES[request.param]
    network = NETWORKS["se_resnet18"]
    model = assemble("se_resnet18", network, Options(classifier_activation=None), lineage=lineage)
    assign(
        model,
        convert({name: fill(name, shape) for name, shape in expected_tensors(model, family).items()}, model, family),
    )
    return request.param, model


def test_array_to_logits(trained, golden):
    """The same array in: pixels from timm's side, normalized inside our network."""
    name, model = trained
    record = Preprocessing(interpolation="bicubic")
    pixels = preprocess(PHOTO, record)
    expected = golden[f"logits/{name}"]
    assert np.abs(answers(model, pixels)[0] - expected).max() < 1e-4 * np.abs(expected).max()


def test_file_to_top_five(trained, golden):
    name, model = trained
    images = preprocess(PHOTO, Preprocessing(interpolation="bicubic"))
    logits = answers(model, images)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    labels = imagenet_classes()
    expected = [labels[index][1] for index in np.argsort(-golden[f"logits/{name}"])[:5]]
    assert [label for _, label, _ in se_keras.decode_predictions(probabilities)[0]] == expected
