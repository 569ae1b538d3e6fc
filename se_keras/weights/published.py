"""The table of published checkpoints.

Sources: hujie-frank/SENet (README, prototxts), huggingface/pytorch-image-models 1.0.31 (model
configurations; results/results-imagenet.csv), Cadene/pretrained-models.pytorch, and
openvinotoolkit/open_model_zoo (files and hashes of the authors' Caffe networks).
"""

from __future__ import annotations

from se_keras.weights import bundled, timm_table
from se_keras.weights.records import Accuracy, WebFile, WeightsRecord
from se_keras.weights.rules import FAMILIES

_OPENVINO = "https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2021.4"
_CAFFE_LICENSE = "Apache-2.0, the license of hujie-frank/SENet, which does not mention the weights separately"

# fmt: off
# model, folder and file in the mirror, known hash; top-1 and top-5 as 100 minus the README's errors; parameters, MACs
_OFFICIAL_ROWS = (
    ("se_bn_inception", "se-inception/SE-BN-Inception.caffemodel", {"sha384": "b5d3a922"},
     76.38, 92.96, 11_931_622, 2_033_239_424),
    ("se_resnet50", "se-resnet-50/SE-ResNet-50.caffemodel", {"sha384": "3f093acb"},
     77.63, 93.64, 28_088_024, 3_860_488_192),
    ("se_resnet101", "se-resnet-101/SE-ResNet-101.caffemodel", {"sha256": "09777ce1"},
     78.25, 94.28, 49_326_872, 7_574_937_600),
    ("se_resnet152", "se-resnet-152/SE-ResNet-152.caffemodel", {"sha256": "bbe7fc5b"},
     78.66, 94.46, 66_821_848, 11_288_993_792),
    ("se_resnext50", "se-resnext-50/SE-ResNeXt-50.caffemodel", {"sha256": "f12c6b53"},
     79.03, 94.46, 27_559_896, 4_232_994_816),
    ("se_resnext101", "se-resnext-101/SE-ResNeXt-101.caffemodel", {"sha256": "78dc95c9"},
     80.19, 95.04, 48_955_416, 7_974_739_968),
)
# fmt: on

ALIAS = "imagenet"


def _official(
    model: str, path: str, known_hash: dict[str, str], top1: float, top5: float, count: int, macs: int
) -> WeightsRecord:
    family = "caffe_bn_inception" if model == "se_bn_inception" else "caffe_resnet"
    return WeightsRecord(
        model=model,
        tag="caffe_in1k",
        family=family,
        lineage=None,
        sources=(WebFile(url=f"{_OPENVINO}/{path}", **known_hash),),
        preprocessing=FAMILIES[family].preprocessing,
        accuracy=(Accuracy(top1=top1, top5=top5, size=224, crop=0.875, measured_by="hujie-frank/SENet, README"),),
        parameters=count,
        macs=macs,
        license=_CAFFE_LICENSE,
        provenance="Trained by the authors of the paper in Caffe, mirrored by OpenVINO's model zoo.",
        unverified="the file itself; the authors' interpolation (assumed bilinear)",
    )


RECORDS: dict[str, WeightsRecord] = {
    record.identifier: record
    for record in (
        *(_official(*row) for row in _OFFICIAL_ROWS),
        *timm_table.read_records(timm_table.PAPER),
        *timm_table.read_records(timm_table.NEWER),
        *bundled.RECORDS,
    )
}

NOT_COMMERCIAL = ("cc-by-nc-4.0", "seer-license")
"""Licenses that forbid commercial use."""


def _default_tags() -> dict[str, str]:
    best: dict[str, WeightsRecord] = {}
    for record in RECORDS.values():
        if record.dataset == "ImageNet-1k" and not record.plain and record.license not in NOT_COMMERCIAL:
            best[record.model] = max(best.get(record.model, record), record, key=lambda one: one.top1 or 0)
    return {model: record.tag for model, record in best.items()}


DEFAULT_TAGS: dict[str, str] = _default_tags()
"""The tag that `weights="imagenet"` stands for: the most accurate at its training size, free for commercial use."""

PAPER_TAGS: dict[str, str] = {"se_bn_inception": "caffe_in1k"} | {
    record.model: record.tag for record in RECORDS.values() if record.provenance.startswith("The authors'")
}
"""The tag that `weights="paper"` stands for: the weights of the authors of the SE paper, or their port."""

ALIASES = {ALIAS: DEFAULT_TAGS, "paper": PAPER_TAGS}
"""Names accepted in place of a tag, each with the tag of every network that has one."""
