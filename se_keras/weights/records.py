"""What is known of a published checkpoint: one frozen record each, and the table of all."""

from __future__ import annotations

import dataclasses

from se_keras.errors import one_of
from se_keras.images.record import Preprocessing

CLASS_ORDERS = ("sorted", "devkit")
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file in a repository of the Hugging Face hub.

    Args:
        repository: "owner/name".
        file: Path inside the repository.
        revision: Branch, tag or full commit.
        sha256: Hash of the file, or its first digits; "" if the record's author has not seen
            it, and then the hash that the hub states is what the content is held against.
    """

    repository: str
    file: str = "model.safetensors"
    revision: str = "main"
    sha256: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WebFile:
    """A file at a plain address.

    Args:
        url: Where it is.
        sha256: Hash of the file, or its first digits.
        sha384: The same by another algorithm; one of both must be known.
    """

    url: str
    sha256: str = ""
    sha384: str = ""

    def __post_init__(self) -> None:
        if not (self.sha256 or self.sha384):
            raise ValueError(f"A file at a plain address needs a known hash; received url={self.url!r} without one.")

    @property
    def file(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundledFile:
    """A file that is installed with the package, in the package's own format.

    Args:
        file: Name in `se_keras/data`.
        sha256: Hash of the file.
    """

    file: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy of one central crop on the validation images of the record's dataset.

    Args:
        top1: Percent right.
        top5: Percent with the right class among the first five.
        size: Height and width of the crop in pixels.
        crop: Share of the shorter side that it was.
        measured_by: Who measured it.
    """

    top1: float
    top5: float
    size: int
    crop: float
    measured_by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """One published checkpoint.

    Args:
        model: Registry name of the network.
        tag: Name of the checkpoint among the network's.
        family: How its tensors are named, a key of `weights.rules.FAMILIES`; "se_keras" for the package's own format.
        lineage: Structure it was trained in, one of the network's lineages; None for the
            network's own.
        sources: Where it is, in order of preference.
        preprocessing: How images were prepared in training.
        accuracy: What was measured, at the training size first.
        parameters: Trainable parameters, with the classifier of all classes.
        macs: Multiply-adds of one image at the training size.
        class_order: "sorted" (WNIDs) or "devkit" (ILSVRC, the authors' own networks).
        channel_order: Of the first convolution's input: "rgb" or "bgr".
        dataset: What it was trained on.
        class_names: Its classes in the order of the outputs; () for ImageNet's 1,000.
        plain: Whether it is of the network without SE.
        reduction: Of its SE blocks, where it is not the network's own.
        licence: As the source states it.
        provenance: One sentence: who trained it, how it came here.
        unverified: What of this record nobody here has been able to check.
    """

    model: str
    tag: str
    family: str
    lineage: str | None
    sources: tuple[HubFile | WebFile | BundledFile, ...]
    preprocessing: Preprocessing
    accuracy: tuple[Accuracy, ...]
    parameters: int
    macs: int
    class_order: str = "sorted"
    channel_order: str = "rgb"
    dataset: str = "ImageNet-1k"
    class_names: tuple[str, ...] = ()
    plain: bool = False
    reduction: int | None = None
    licence: str
    provenance: str
    unverified: str

    def __post_init__(self) -> None:
        one_of("class_order", self.class_order, CLASS_ORDERS)
        one_of("channel_order", self.channel_order, CHANNEL_ORDERS)
        if not self.sources:
            raise ValueError(f"A record needs at least one source; received none for {self.identifier!r}.")

    @property
    def identifier(self) -> str:
        """The checkpoint's name everywhere: "model.tag"."""
        return f"{self.model}.{self.tag}"

    @property
    def top1(self) -> float:
        """Percent right at the training size."""
        return self.accuracy[0].top1
