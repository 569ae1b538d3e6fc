"""Checkpoints that were trained here and are installed with the package.

`pretrained/NAME/` holds the evidence for each: settings, log, curves, and measurements.
`pretrained/make_checkpoint.py` writes all of it and prints the row.
"""

from __future__ import annotations

from se_keras.images.record import Preprocessing
from se_keras.weights.records import Accuracy, BundledFile, WeightsRecord
from se_keras.weights.rules import OWN

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The mean and standard deviation of CIFAR-10's training images, as in the table of networks.
CIFAR_INPUT = Preprocessing(size=32, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))

# model, tag, reduction (None: without SE), SHA-256, top-1, top-5, parameters, MACs, provenance
_ROWS = (
    ("se_resnet20", "cifar10", 4,
     "2d0e557edd07ca2e5b4deca04f205fa8c533d0c97ad13bfe9d1428c5dea02627",
     92.30, 99.74, 280_958, 40_821_248,
     "Trained here with the recipe `cifar`: 60 epochs, seed 0, final weights."),
    ("se_resnet20", "cifar10_plain", None,
     "231a94f11858efbc76876991ab3f2eb92593e7b7c41b3d95f8766a589f8187a8",
     91.30, 99.83, 272_474, 40_813_184,
     "Trained here like se_resnet20.cifar10, but without SE, for comparison."),
)  # fmt: skip


def _record(
    model: str,
    tag: str,
    reduction: int | None,
    sha256: str,
    top1: float,
    top5: float,
    count: int,
    macs: int,
    provenance: str,
) -> WeightsRecord:
    return WeightsRecord(
        model=model,
        tag=tag,
        family=OWN,
        lineage=None,
        sources=(BundledFile(file=f"{model}.{tag}.safetensors", sha256=sha256),),
        preprocessing=CIFAR_INPUT,
        accuracy=(
            Accuracy(top1=top1, top5=top5, size=32, crop=1.0, measured_by=f"pretrained/{model}.{tag}/metrics.json"),
        ),
        parameters=count,
        macs=macs,
        dataset="CIFAR-10",
        class_names=CIFAR10_CLASSES,
        plain=reduction is None,
        reduction=reduction,
        license="Apache-2.0, like the code; CIFAR-10 itself states no license",
        provenance=provenance,
        unverified="nothing: `se-keras evaluate` measures it again",
    )


RECORDS = tuple(_record(*row) for row in _ROWS)
