"""Records of checkpoints, one frozen dataclass for each, and the kinds of sources that they come from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from se_keras.images.record import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file in a repository of the Hugging Face Hub.

    Args:
        repository: "owner/name".
        file: Path inside the repository.
        revision: Branch, tag, or full commit.
        sha256: Hash of the file, or its first digits. "" if the record's author has not seen
            the file; its content is then compared with the hash that the hub states.
    """

    repository: str
    file: str = "model.safetensors"
    revision: str = "main"
    sha256: str = ""

    @property
    def where(self) -> str:
        """Returns the location of the file, in readable form."""
        return f"hub: {self.repository}/{self.file}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebFile:
    """A file at a plain URL.

    Args:
        url: The URL.
        sha256: Hash of the file, or its first digits.
        sha384: The same with another algorithm. At least one of the two must be known.
    """

    url: str
    sha256: str = ""
    sha384: str = ""

    def __post_init__(self) -> None:
        if not (self.sha256 or self.sha384):
            raise ValueError(f"A file at a plain URL needs a known hash; received url={self.url!r} without one.")

    @property
    def file(self) -> str:
        """Returns the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def where(self) -> str:
        """Returns the location of the file, in readable form."""
        return self.url


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundledFile:
    """A file that is installed with the package, in the package's own format.

    Args:
        file: Name in `se_keras/data`.
        sha256: Hash of the file.
    """

    file: str
    sha256: str

    @property
    def where(self) -> str:
        """Returns the location of the file, in readable form."""
        return f"installed with the package: se_keras/data/{self.file}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalFile:
    """A file of the user's own.

    Args:
        path: The file.
        tensors: Its tensors, as its reader returned them. None for a file that only Keras reads.
    """

    path: str
    tensors: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def file(self) -> str:
        """Returns the name of the file."""
        return os.path.basename(self.path)

    @property
    def where(self) -> str:
        """Returns the location of the file, in readable form."""
        return self.path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy on the validation images of the record's dataset, with one center crop.

    Args:
        top1: Top-1 accuracy in percent.
        top5: Top-5 accuracy in percent.
        size: Height and width of the crop in pixels.
        crop: Fraction of the shorter side that the crop keeps.
        measured_by: Who measured it.
    """

    top1: float
    top5: float
    size: int
    crop: float
    measured_by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """The record of one checkpoint: a published one, or a file of the user's own.

    Args:
        model: Registry name of the network.
        tag: Name of the checkpoint among those of the network; the path of a user's file.
        family: How its tensors are named, a key of `weights.rules.FAMILIES`, `rules.OWN`, or `rules.KERAS`.
        lineage: Structure it was trained in. None, or one that the network lacks: the network's own.
        sources: Where to get it, in order of preference.
        preprocessing: Preprocessing of the images in training. None if a user's file does not state it.
        accuracy: Measured accuracies, the one at the training size first. () for a user's file.
        parameters: Number of trainable parameters, including the classifier of all classes.
        macs: Multiply-adds for one image at the training size.
        dataset: Dataset it was trained on.
        class_names: Class names in the order of the outputs; () for ImageNet's 1,000.
        classes: Number of classes that the network is built with by default. None: the network's own number.
        timm: timm's name of it, "architecture.tag". "" if timm does not have it.
        plain: Whether it belongs to the network without SE. None if a user's file does not state it.
        reduction: Reduction of its SE blocks, if it is not the network's own.
        license: The license, as the source states it.
        provenance: One sentence: who trained it, and how it got here.
        unverified: What could not be verified here.
    """

    model: str
    tag: str
    family: str
    lineage: str | None
    sources: tuple[HubFile | WebFile | BundledFile | LocalFile, ...]
    preprocessing: Preprocessing | None
    accuracy: tuple[Accuracy, ...] = ()
    parameters: int = 0
    macs: int = 0
    dataset: str = "ImageNet-1k"
    class_names: tuple[str, ...] = ()
    classes: int | None = None
    timm: str = ""
    plain: bool | None = False
    reduction: int | None = None
    license: str = ""
    provenance: str = ""
    unverified: str = ""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(f"A record needs at least one source; received none for {self.identifier!r}.")

    @property
    def identifier(self) -> str:
        """Returns the checkpoint's identifier: "model.tag"."""
        return f"{self.model}.{self.tag}"

    @property
    def top1(self) -> float:
        """Returns the top-1 accuracy in percent at the training size."""
        return self.accuracy[0].top1
