"""The table of published checkpoints.

Sources: hujie-frank/SENet (README, prototxts), huggingface/pytorch-image-models 1.0.31 (model
configurations; results/results-imagenet.csv), Cadene/pretrained-models.pytorch, and
openvinotoolkit/open_model_zoo (files and hashes of the authors' Caffe networks).
"""

from __future__ import annotations

from se_keras.images.record import Preprocessing
from se_keras.weights import bundled, timm_table
from se_keras.weights.records import Accuracy, HubFile, WebFile, WeightsRecord
from se_keras.weights.rules import FAMILIES

_RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download"
_GLUON_RELEASES = "https://github.com/rwightman/pytorch-pretrained-gluonresnet/releases/download"
_OPENVINO = "https://storage.openvinotoolkit.org/repositories/open_model_zoo/public/2021.4"
_TIMM = "huggingface/pytorch-image-models, results-imagenet.csv"
_TIMM_LICENSE = (
    "apache-2.0, as stated in timm's configuration; assume that weights trained on ImageNet carry its "
    "research-only terms"
)
_CAFFE_LICENSE = "Apache-2.0, the license of hujie-frank/SENet, which does not mention the weights separately"

_PORT = "The authors' Caffe weights, ported to PyTorch by Remi Cadene with the classes in sorted order."
_EXTRA_RELU = "Trained by Ross Wightman with timm; a ReLU lies between the last batch normalization and the SE block."
_WIGHTMAN = "Trained by Ross Wightman with timm."
_RA2 = "Trained by Ross Wightman with timm's RandAugment recipe."
_RSB = "Trained by Ross Wightman with a recipe from 'ResNet strikes back' (arXiv 2110.00476)."
_RACM = "Trained by Ross Wightman with timm's RandAugment, CutMix, and Mixup recipe."
_AH = "Trained by Ross Wightman with timm's augmentation-heavy recipe."
_GLUON = "Trained for GluonCV (arXiv 1812.01187), ported to PyTorch by Ross Wightman."

_Row = tuple[int, float, float, float]  # size, crop, top-1, top-5

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

# model, lineage, release file, hub repository, interpolation, top-1, top-5, parameters, MACs, provenance
_LEGACY_ROWS = (
    ("se_resnet18", "legacy", "v0.1-weights/seresnet18-4bb0ce65.pth", None,
     "bicubic", 71.742, 90.340, 11_778_592, 1_814_160_384, _EXTRA_RELU),
    ("se_resnet34", "legacy", "v0.1-weights/seresnet34-a4004e63.pth", None,
     "bilinear", 74.788, 92.134, 21_958_868, 3_663_918_592, _EXTRA_RELU),
    ("se_resnet50", None, "v0.1-cadene/se_resnet50-ce0d4300.pth", "smp-hub/se_resnet50.imagenet",
     "bilinear", 77.650, 93.732, 28_088_024, 3_860_488_192, _PORT),
    ("se_resnet101", None, "v0.1-cadene/se_resnet101-7e38fcc6.pth", "smp-hub/se_resnet101.imagenet",
     "bilinear", 78.370, 94.264, 49_326_872, 7_574_937_600, _PORT),
    ("se_resnet152", None, "v0.1-cadene/se_resnet152-d17c99b7.pth", "smp-hub/se_resnet152.imagenet",
     "bilinear", 78.662, 94.370, 66_821_848, 11_288_993_792, _PORT),
    ("se_resnext26", None, "v0.1-weights/seresnext26_32x4d-65ebdb501.pth", None,
     "bicubic", 77.100, 93.332, 16_790_280, 2_472_099_840, _WIGHTMAN),
    ("se_resnext50", None, "v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth", "smp-hub/se_resnext50_32x4d.imagenet",
     "bilinear", 79.080, 94.428, 27_559_896, 4_232_994_816, _PORT),
    ("se_resnext101", None, "v0.1-weights/legacy_se_resnext101_32x4d-37725eac.pth",
     "smp-hub/se_resnext101_32x4d.imagenet", "bilinear", 80.274, 95.032, 48_955_416, 7_974_739_968, _PORT),
    ("senet154", None, "v0.1-weights/legacy_senet154-e9eb9fe6.pth", "smp-hub/senet154.imagenet",
     "bilinear", 81.320, 95.502, 115_088_984, 20_688_363_520, _PORT),
)

# model, timm's name and tag, release file, at the training size, at the test size, parameters, MACs, provenance
_TIMM_ROWS: tuple[tuple[str, str, str, _Row, _Row | None, int, int, str], ...] = (
    ("se_resnet50", "seresnet50.ra2_in1k", "v0.1-weights/seresnet50_ra_224-8efdb4bb.pth",
     (224, 0.875, 80.260, 95.068), (288, 0.95, 81.288, 95.652), 28_088_024, 4_091_699_200, _RA2),
    ("se_resnet50", "seresnet50.a1_in1k", "v0.1-rsb-weights/seresnet50_a1_0-ffa00869.pth",
     (224, 0.95, 80.012, 94.704), (288, 1.0, 81.114, 95.122), 28_088_024, 4_091_699_200, _RSB),
    ("se_resnet50", "seresnet50.a2_in1k", "v0.1-rsb-weights/seresnet50_a2_0-850de0d9.pth",
     (224, 0.95, 80.102, 94.720), (288, 1.0, 81.094, 95.230), 28_088_024, 4_091_699_200, _RSB),
    ("se_resnet50", "seresnet50.a3_in1k", "v0.1-rsb-weights/seresnet50_a3_0-317ecd56.pth",
     (160, 0.95, 75.104, 92.096), (224, 0.95, 77.036, 93.072), 28_088_024, 2_089_836_544, _RSB),
    ("se_resnet152d", "seresnet152d.ra2_in1k", "v0.1-weights/seresnet152d_ra2-04464dd2.pth",
     (256, 0.95, 83.702, 96.794), (320, 1.0, 84.344, 97.044), 66_841_080, 15_357_157_376, _RA2),
    ("se_resnext26d", "seresnext26d_32x4d.bt_in1k", "v0.1-weights/seresnext26d_32x4d-80fa48a3.pth",
     (224, 0.875, 77.592, 93.614), (288, 0.95, 78.816, 94.266), 16_809_512, 2_711_740_416, _WIGHTMAN),
    ("se_resnext26t", "seresnext26t_32x4d.bt_in1k", "v0.1-weights/seresnext26tn_32x4d-569cb627.pth",
     (224, 0.875, 77.980, 93.750), (288, 0.95, 78.736, 94.318), 16_806_976, 2_680_129_536, _WIGHTMAN),
    ("se_resnext50", "seresnext50_32x4d.racm_in1k", "v0.1-weights/seresnext50_32x4d_racm-a304a460.pth",
     (224, 0.875, 81.268, 95.624), (288, 0.95, 82.186, 96.146), 27_559_896, 4_232_994_816, _RACM),
    ("se_resnext50", "seresnext50_32x4d.gluon_in1k", "v0.1/gluon_seresnext50_32x4d-90cf2d6e.pth",
     (224, 0.875, 79.916, 94.816), None, 27_559_896, 4_232_994_816, _GLUON),
    ("se_resnext101", "seresnext101_32x4d.gluon_in1k", "v0.1/gluon_seresnext101_32x4d-cf52900d.pth",
     (224, 0.875, 80.886, 95.268), None, 48_955_416, 7_974_739_968, _GLUON),
    ("se_resnext101_64x4d", "seresnext101_64x4d.gluon_in1k", "v0.1/gluon_seresnext101_64x4d-f9926f93.pth",
     (224, 0.875, 80.884, 95.308), None, 88_232_984, 15_465_013_248, _GLUON),
    ("senet154", "senet154.gluon_in1k", "v0.1/gluon_senet154-70a1a3c0.pth",
     (224, 0.875, 81.258, 95.358), None, 115_088_984, 20_688_363_520, _GLUON),
    ("se_resnext101_32x8d", "seresnext101_32x8d.ah_in1k", "v0.1-tpu-weights/seresnext101_32x8d_ah-e6bc4c0a.pth",
     (224, 0.95, 83.618, 96.412), (288, 1.0, 84.192, 96.860), 93_569_048, 16_418_758_656, _AH),
    ("se_resnext101d_32x8d", "seresnext101d_32x8d.ah_in1k", "v0.1-tpu-weights/seresnext101d_32x8d_ah-191d7b94.pth",
     (224, 0.95, 83.702, 96.620), (288, 1.0, 84.380, 96.918), 93_588_280, 16_658_399_232, _AH),
)
# fmt: on

# timm's architecture of each network in `_LEGACY_ROWS`
_LEGACY_NAMES = {
    "se_resnet18": "legacy_seresnet18",
    "se_resnet34": "legacy_seresnet34",
    "se_resnet50": "legacy_seresnet50",
    "se_resnet101": "legacy_seresnet101",
    "se_resnet152": "legacy_seresnet152",
    "se_resnext26": "legacy_seresnext26_32x4d",
    "se_resnext50": "legacy_seresnext50_32x4d",
    "se_resnext101": "legacy_seresnext101_32x4d",
    "senet154": "legacy_senet154",
}

ALIAS = "imagenet"
_AVERAGE_SHORTCUTS = ("se_resnet152d", "se_resnext26d", "se_resnext26t", "se_resnext101d_32x8d")


def _suffix(release: str) -> str:
    """Returns the digits between "-" and ".pth", by PyTorch's convention the start of the file's SHA-256."""
    return release.rsplit("-", 1)[1].removesuffix(".pth")


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


def _legacy(
    model: str,
    lineage: str | None,
    release: str,
    hub: str | None,
    interpolation: str,
    top1: float,
    top5: float,
    count: int,
    macs: int,
    provenance: str,
) -> WeightsRecord:
    hub_files = (HubFile(repository=hub),) if hub else ()
    return WeightsRecord(
        model=model,
        tag="legacy_in1k",
        family="timm_legacy",
        lineage=lineage,
        sources=(*hub_files, WebFile(url=f"{_RELEASES}/{release}", sha256=_suffix(release))),
        preprocessing=Preprocessing(interpolation=interpolation),
        accuracy=(Accuracy(top1=top1, top5=top5, size=224, crop=0.875, measured_by=_TIMM),),
        parameters=count,
        macs=macs,
        license=_TIMM_LICENSE,
        provenance=provenance,
        timm=f"{_LEGACY_NAMES[model]}.in1k",
        unverified="the files themselves" + ("; that the hub's copy contains the classifier" if hub else ""),
    )


def _timm(
    model: str, name: str, release: str, train: _Row, test: _Row | None, count: int, macs: int, provenance: str
) -> WeightsRecord:
    tag = name.split(".")[1]
    releases = _GLUON_RELEASES if tag == "gluon_in1k" else _RELEASES
    return WeightsRecord(
        model=model,
        tag=tag,
        family="timm_d" if model in _AVERAGE_SHORTCUTS else "timm",
        lineage="timm",
        sources=(
            HubFile(repository=f"timm/{name}"),
            WebFile(url=f"{releases}/{release}", sha256=_suffix(release)),
        ),
        preprocessing=Preprocessing(size=train[0], crop=train[1], interpolation="bicubic"),
        accuracy=tuple(
            Accuracy(size=row[0], crop=row[1], top1=row[2], top5=row[3], measured_by=_TIMM)
            for row in (train, test)
            if row
        ),
        parameters=count,
        macs=macs,
        license=_TIMM_LICENSE,
        provenance=provenance,
        timm=name,
        unverified="the files themselves; the hub's file is compared with the hash that the hub states",
    )


RECORDS: dict[str, WeightsRecord] = {
    record.identifier: record
    for record in (
        *(_official(*row) for row in _OFFICIAL_ROWS),
        *(_legacy(*row) for row in _LEGACY_ROWS),
        *(_timm(*row) for row in _TIMM_ROWS),
        *timm_table.read_records(),
        *bundled.RECORDS,
    )
}

NOT_COMMERCIAL = ("cc-by-nc-4.0", "seer-license")
"""Licenses that forbid commercial use."""


def _default_tags() -> dict[str, str]:
    best: dict[str, WeightsRecord] = {}
    for record in RECORDS.values():
        if record.dataset == "ImageNet-1k" and not record.plain and record.license not in NOT_COMMERCIAL:
            best[record.model] = max(best.get(record.model, record), record, key=lambda one: one.top1)
    return {model: record.tag for model, record in best.items()}


DEFAULT_TAGS: dict[str, str] = _default_tags()
"""The tag that `weights="imagenet"` stands for: the most accurate at its training size, free for commercial use."""

PAPER_TAGS: dict[str, str] = {"se_bn_inception": "caffe_in1k"} | {
    row[0]: "legacy_in1k" for row in _LEGACY_ROWS if row[-1] is _PORT
}
"""The tag that `weights="paper"` stands for: the weights of the authors of the SE paper, or their port."""

ALIASES = {ALIAS: DEFAULT_TAGS, "paper": PAPER_TAGS}
"""Names accepted in place of a tag, each with the tag of every network that has one."""
