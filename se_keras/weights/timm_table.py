"""Records of timm's checkpoints, from two tables in the package's data.

Source: huggingface/pytorch-image-models 1.0.31, model configurations and results/results-imagenet.csv.
"""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Iterator, Mapping

from se_keras.images.record import Preprocessing
from se_keras.weights.records import Accuracy, HubFile, WebFile, WeightsRecord

RELEASES = "https://github.com/huggingface/pytorch-image-models/releases/download"
PAPER, NEWER = "paper_checkpoints.csv", "timm_checkpoints.csv"  # of the paper's networks, and of those after it
MEASURED_BY = "huggingface/pytorch-image-models, results-imagenet.csv"

# Mean and standard deviation of a channel, by the name in the table.
_NORMALIZATIONS: dict[str, dict[str, tuple[float, float, float]]] = {
    "imagenet": {},
    "half": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    "none": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
}

_LICENSES = {
    "timm": "apache-2.0, as stated in timm's configuration; assume that weights trained on ImageNet carry its "
    "research-only terms",
}
"""Licenses by their names in the tables, which otherwise state them themselves."""

_UNVERIFIED = {
    "timm": "; the hub's file is compared with the hash that the hub states",
    "smp-hub": "; that the hub's copy contains the classifier",
    "": "",
}
"""What else nobody could verify here, by the owner of the repository."""

_RECIPES = {
    "aa_in1k": "Trained by its authors in TensorFlow with AutoAugment, ported by Ross Wightman.",
    "agc_in1k": "Trained by Ross Wightman with timm and adaptive gradient clipping.",
    "ah_in1k": "Trained by Ross Wightman with timm's augmentation-heavy recipe.",
    "ap_in1k": "Trained in TensorFlow with AdvProp (arXiv 1911.09665), ported by Ross Wightman.",
    "deit_in1k": "Trained by the authors of DeiT (arXiv 2012.12877) as a teacher.",
    "ft_in1k": "Fine-tuned by Ross Wightman with timm.",
    "in1k": "Trained by its authors, ported to timm.",
    "in21k_ft_in1k": "Trained by its authors in TensorFlow on ImageNet-21k, fine-tuned, ported by Ross Wightman.",
    "lamb_in1k": "Trained by Ross Wightman with timm and LAMB.",
    "lion_in12k_ft_in1k": "Trained by Ross Wightman with timm and Lion on ImageNet-12k, and fine-tuned.",
    "miil_in21k_ft_in1k": "Trained by Alibaba MIIL on ImageNet-21k (arXiv 2104.10972), and fine-tuned.",
    "ns_jft_in1k": "Trained in TensorFlow with Noisy Student on JFT-300M (arXiv 1911.04252), ported by Ross Wightman.",
    "pycls_in1k": "Trained by its authors with pycls (arXiv 2003.13678).",
    "ra_in1k": "Trained by Ross Wightman with timm and RandAugment.",
    "ra2_in1k": "Trained by Ross Wightman with timm's RandAugment recipe.",
    "ra3_in1k": "Trained by Ross Wightman with timm's third RandAugment recipe.",
    "ra4": "Trained by Ross Wightman with timm's MobileNet-V4 recipe, 3,600 epochs.",
    "rmsp_in1k": "Trained by Ross Wightman with timm and RMSProp.",
    "seer_ft_in1k": "Trained without labels on public photos (SEER, arXiv 2202.08360), and fine-tuned.",
    "sw_in12k": "Trained by Ross Wightman with timm on ImageNet-12k, and fine-tuned.",
    "swag_ft_in1k": "Trained by Meta on hashtags (SWAG, arXiv 2201.08371), and fine-tuned.",
    "swag_lc_in1k": "Trained by Meta on hashtags (SWAG, arXiv 2201.08371); only the classifier on ImageNet.",
    "tf_in1k": "Trained by its authors in TensorFlow (arXiv 2103.07579), ported by Ross Wightman.",
    "tv2_in1k": "Trained by torchvision with its second recipe.",
}
"""The training that a tag, or the beginning of one, stands for."""


def _provenance(tag: str) -> str:
    return next(_RECIPES[start] for start in sorted(_RECIPES, key=len, reverse=True) if tag.startswith(start))


def read_records(table: str) -> Iterator[WeightsRecord]:
    """Yields the records in a table, `PAPER` or `NEWER`."""
    content = (importlib.resources.files("se_keras") / "data" / table).read_text("utf-8")
    yield from map(_record, csv.DictReader(content.splitlines()))


def _record(row: Mapping[str, str]) -> WeightsRecord:
    repository = row.get("repository", f"timm/{row['model']}.{row['tag']}")
    return WeightsRecord(
        model=row["model"],
        tag=row["tag"],
        family=row["family"],
        lineage=row.get("lineage") or None,
        sources=tuple(_sources(repository, row["release"])),
        preprocessing=Preprocessing(
            size=int(row["size"]),
            crop=float(row["crop"]),
            interpolation=row["interpolation"],
            **_NORMALIZATIONS[row["normalization"]],
        ),
        accuracy=tuple(_accuracies(row)),
        parameters=int(row["parameters"]),
        macs=int(row["macs"]),
        license=_LICENSES.get(row["license"], row["license"]),
        provenance=row.get("provenance") or _provenance(row["tag"]),
        timm=row.get("timm") or f"{row['model']}.{row['tag']}",
        unverified="the files themselves" + _UNVERIFIED[repository.partition("/")[0]],
    )


def _sources(repository: str, release: str) -> Iterator[HubFile | WebFile]:
    if repository:
        yield HubFile(repository=repository)
    if release:
        url = release if "://" in release else f"{RELEASES}/{release}"
        # By PyTorch's convention, a name ends in the first digits of the file's SHA-256.
        yield WebFile(url=url, sha256=release.removesuffix(".pth").rsplit("-", 1)[-1])


def _accuracies(row: Mapping[str, str]) -> Iterator[Accuracy]:
    for kind in ("", "test_"):
        if row[f"{kind}size"]:
            yield Accuracy(
                top1=float(row[f"{kind}top1"]),
                top5=float(row[f"{kind}top5"]),
                size=int(row[f"{kind}size"]),
                crop=float(row[f"{kind}crop"]),
                measured_by=MEASURED_BY,
            )
