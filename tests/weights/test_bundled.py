"""The checkpoints that are installed with the package: whole, what they say they are, and usable without a network."""

import json
import pathlib

import numpy as np
import pytest
from small_networks import answers

import se_keras
from se_keras.errors import ChecksumError
from se_keras.training.sources import load_sample
from se_keras.weights import bundled
from se_keras.weights.records import BundledFile

ROOT = pathlib.Path(__file__).parents[2]
NAMES = [record.identifier for record in bundled.RECORDS]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SE_KERAS_HOME", str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_classifies_images_it_has_not_seen(name):
    sample = load_sample()
    model = se_keras.create_model(name)
    accuracy = np.mean(answers(model, sample.x_test).argmax(axis=1) == sample.y_test)
    stated = json.loads((ROOT / "pretrained" / name / "metrics.json").read_text())["fp32"]["accuracy"]
    assert abs(accuracy - stated) < 0.04  # 500 images of the 10,000: three standard deviations


@pytest.mark.parametrize("record", bundled.RECORDS, ids=NAMES)
def test_record_says_what_was_measured(record):
    folder = ROOT / "pretrained" / record.identifier
    metrics = json.loads((folder / "metrics.json").read_text())
    (source,) = record.sources
    assert isinstance(source, BundledFile)
    assert metrics["weights"]["sha256"] == source.sha256
    assert record.accuracy[0].top1 == pytest.approx(100 * metrics["fp32"]["accuracy"])
    assert record.accuracy[0].top5 == pytest.approx(100 * metrics["fp32"]["top5"])
    assert metrics["fp32"]["images"] == metrics["int8"]["images"] == 10_000
    assert abs(metrics["int8"]["accuracy"] - metrics["fp32"]["accuracy"]) <= 0.005
    for name in ("run.json", "log.csv", "curves.png", "confusion.png", "README.md"):
        assert (folder / name).is_file(), name


def test_both_are_of_the_same_recipe_seed_and_images():
    facts = [json.loads((ROOT / "pretrained" / name / "run.json").read_text())["facts"] for name in NAMES]
    for key in ("recipe", "seed", "data"):
        assert facts[0][key] == facts[1][key]


def test_builders_take_the_tag():
    with_se = se_keras.SEResNet20(weights="cifar10")
    plain = se_keras.SEResNet20(weights="cifar10_plain")
    blocks = [sum(isinstance(layer, se_keras.SqueezeExcite) for layer in model.layers) for model in (with_se, plain)]
    assert blocks == [9, 0]


def test_body_is_kept_and_the_head_is_fresh_for_other_classes():
    full, other = se_keras.SEResNet20(weights="cifar10"), se_keras.SEResNet20(weights="cifar10", classes=3)
    assert other.output_shape == (None, 3)
    for layer in full.layers:
        if layer.name != "logits":
            for a, b in zip(layer.get_weights(), other.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)


def test_reduction_is_the_checkpoint_s():
    model = se_keras.SEResNet20(weights="cifar10", se=se_keras.SEConfig(reduction=4))
    assert model.get_layer("stage2_block1_se").reduction == 4
    with pytest.raises(ValueError, match=r"reduction 4; received se=SEConfig\(reduction=8\)"):
        se_keras.SEResNet20(weights="cifar10", se=se_keras.SEConfig(reduction=8))


def test_se_none_names_the_plain_checkpoint():
    message = r"'cifar10' has SE blocks; received se=None .* plain network pass weights='cifar10_plain'\.$"
    with pytest.raises(ValueError, match=message):
        se_keras.SEResNet20(weights="cifar10", se=None)


def test_excitation_of_a_plain_checkpoint_is_refused():
    with pytest.raises(ValueError, match=r"'cifar10_plain' has no SE blocks; received se=SEConfig\(reduction=8\)"):
        se_keras.SEResNet20(weights="cifar10_plain", se=se_keras.SEConfig(reduction=8))


def test_there_is_no_imagenet_for_small_networks():
    with pytest.raises(ValueError, match=r"'se_resnet20' has no ImageNet weights.*Available: cifar10, cifar10_plain"):
        se_keras.SEResNet20(weights="imagenet")


def test_a_damaged_installation_is_noticed(monkeypatch, tmp_path):
    record = bundled.RECORDS[0]
    import importlib.resources

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / record.sources[0].file).write_bytes(b"x" * 1000)
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(ChecksumError, match="not the published one"):
        se_keras.create_model(record.identifier)


def test_they_are_small():
    files = list((ROOT / "se_keras/data").glob("*.safetensors"))
    assert len(files) == len(NAMES)
    assert sum(file.stat().st_size for file in files) <= 6e6
