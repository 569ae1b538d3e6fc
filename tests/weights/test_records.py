"""Every record of a published checkpoint: complete, and true of the network that it names."""

from __future__ import annotations

import math
import pathlib

import pytest
from cases import ALL, NEWER_QUICK, NEWER_TESTED, PAPER_TESTED

from se_keras import SEConfig
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS, list_weights
from se_keras.weights.find import find_record
from se_keras.weights.published import DEFAULT_TAGS, NOT_COMMERCIAL, PAPER_TAGS, RECORDS
from se_keras.weights.records import BundledFile, HubFile, WebFile
from se_keras.weights.rules import FAMILIES, family_named
from se_keras.weights.structure import LINEAGES, fingerprint_of

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_complete(name):
    record = RECORDS[name]
    network = NETWORKS[record.model]
    assert name == f"{record.model}.{record.tag}"
    assert record.family in (*FAMILIES, "se_keras")
    assert record.lineage is None or record.lineage in network.lineages
    assert record.license
    for text in (record.provenance, record.unverified):
        assert len(text) > 10
    assert bool(record.accuracy) == (record.classes is None)  # nobody measures the others
    assert {row.size for row in record.accuracy[:1]} <= {record.preprocessing.size}
    for row in record.accuracy:
        assert 55 < row.top1 < row.top5 < 100
        assert row.measured_by
    for source in record.sources:
        if isinstance(source, WebFile):
            assert source.url.startswith("https://")
            assert len(source.sha256 or source.sha384) >= 8
        elif isinstance(source, BundledFile):
            assert record.family == "se_keras"
            assert len(source.sha256) == 64
        else:
            assert isinstance(source, HubFile)
            assert source.file.endswith(".safetensors")


def test_authors_networks_are_bgr_and_in_devkit_order_and_no_others():
    for record in RECORDS.values():
        is_caffe, family = record.family.startswith("caffe"), family_named(record.family)
        assert (family.class_order, family.channel_order) == (("devkit", "bgr") if is_caffe else ("sorted", "rgb"))
        assert (record.preprocessing.std == (1 / 255,) * 3) == is_caffe


def test_alias_exists_for_every_network_with_weights():
    for_all = [record for record in RECORDS.values() if record.license not in NOT_COMMERCIAL]
    assert DEFAULT_TAGS.keys() == {record.model for record in for_all if record.dataset == "ImageNet-1k"}
    for model, tag in DEFAULT_TAGS.items():
        assert RECORDS[f"{model}.{tag}"].license not in NOT_COMMERCIAL
        assert RECORDS[f"{model}.{tag}"].top1 == max(record.top1 or 0 for record in for_all if record.model == model)
    assert list_weights() == sorted(RECORDS)


def test_paper_stands_for_the_authors_weights():
    assert {PAPER_TAGS[model] for model in PAPER_TAGS} == {"caffe_in1k", "legacy_in1k"}
    assert find_record("se_resnet50", "paper") is RECORDS["se_resnet50.legacy_in1k"]
    assert find_record("se_resnet50", "imagenet") is RECORDS["se_resnet50.ra2_in1k"]
    with pytest.raises(ValueError, match=r"'regnety_002' has no weights by the authors of the SE paper; .*'paper'"):
        find_record("regnety_002", "paper")


def test_a_license_that_forbids_commercial_use_is_said():
    with pytest.warns(UserWarning, match=r"'regnety_1280\.swag_lc_in1k', cc-by-nc-4\.0, forbids commercial use"):
        find_record("regnety_1280", "swag_lc_in1k")
    with pytest.raises(ValueError, match=r"'regnety_1280' has no ImageNet weights"):
        find_record("regnety_1280", "imagenet")


def structure(record):
    se = None if record.plain else SEConfig(reduction=record.reduction)
    return record.model, record.lineage, record.preprocessing.size, se, record.classes


TESTED = {*PAPER_TESTED, *NEWER_TESTED}
COUNTED = TESTED if ALL else {*PAPER_TESTED, *NEWER_QUICK, "mobilenetv3_large_100", "regnety_160"}
STRUCTURES = sorted({structure(record) for record in RECORDS.values() if record.model in COUNTED}, key=str)


@pytest.mark.parametrize(
    ("model", "lineage", "size", "se", "classes"),
    [
        pytest.param(
            *row,
            marks=()
            if row[4] is None and row[0] in ("se_resnet18", "se_resnet20", "se_resnext26d", "mobilenetv3_small_050")
            else pytest.mark.slow,
        )
        for row in STRUCTURES
    ],
)
def test_recorded_counts_are_the_networks(model, lineage, size, se, classes):
    from se_keras import model_info

    options = Options(input_shape=(size, size, 3), se=se, classes=classes or None, include_top=classes != 0)
    built = assemble(model, NETWORKS[model], options, lineage=lineage)
    trainable = sum(math.prod(variable.shape) for variable in built.trainable_variables)
    macs = model_info(built).total.macs
    for record in RECORDS.values():
        if structure(record) == (model, lineage, size, se, classes):
            assert (record.parameters, record.macs) == (trainable, macs)


@pytest.mark.slow
def test_generated_tables_are_current(run_warm):
    path = str(ROOT / "pretrained/make_tables.py")
    run_warm(f"import runpy, sys; sys.argv = [{path!r}, '--check']; runpy.run_path({path!r}, run_name='__main__')")


def test_plain_address_without_a_hash_is_refused():
    with pytest.raises(ValueError, match="needs a known hash"):
        WebFile(url="https://example.org/model.pth")


@pytest.mark.parametrize(
    ("model", "lineage"),
    [
        pytest.param(name, lineage, marks=() if name == "se_resnet18" else pytest.mark.slow)
        for name in sorted(TESTED)
        for lineage, spec in NETWORKS[name].lineages.items()
        if spec != NETWORKS[name].spec
    ],
)
def test_lineage_of_a_file_is_known_by_its_fingerprint(model, lineage):
    found = fingerprint_of(assemble(model, NETWORKS[model], Options(input_shape=(64, 64, 3)), lineage=lineage))
    assert LINEAGES.get(found) == lineage, f'add to weights.structure.LINEAGES: "{found}": "{lineage}",  # {model}'
