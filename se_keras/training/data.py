"""Images to train and test on: where they come from, and in what order they are read."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.resources
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
import numpy as np
from PIL import Image, UnidentifiedImageError

from se_keras.errors import missing_package
from se_keras.preprocessing import Preprocessing, load_image, preprocess
from se_keras.training.augment import BatchTransform, RandomAreaCrop, Transform

IMAGE_FILES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A small labelled set of real images.

    Args:
        x_train: RGB images for training, uint8, 0 to 255, shape (n, height, width, 3).
        y_train: Their class indices, uint8, shape (n,).
        x_test: Images for testing, as `x_train`.
        y_test: Their class indices.
        class_names: Name of each class, in the order of the indices.
        source: Where the images are from.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    source: str


def load_sample() -> Sample:
    """The real images that come with the package: 100 training and 50 test images of each class of CIFAR-10.

    Returns:
        A `Sample` of 1,000 and 500 images of 32x32 pixels, lossless.

    Example:

    >>> load_sample().x_train.shape
    (1000, 32, 32, 3)
    """
    file = importlib.resources.files("se_keras").joinpath("data/cifar10_sample.npz")
    with file.open("rb") as stream, np.load(stream) as arrays:
        return Sample(
            x_train=arrays["x_train"],
            y_train=arrays["y_train"],
            x_test=arrays["x_test"],
            y_test=arrays["y_test"],
            class_names=tuple(map(str, arrays["class_names"])),
            source=str(arrays["source"]),
        )


class ImageSource(Protocol):
    """Labelled images that can be read in any order.

    Attributes:
        labels: Class index of each, int64, shape (n,).
        class_names: Name of each class, in the order of the indices.
        fingerprint: Changes when the images or labels do.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> np.ndarray:
        """One RGB image: uint8, 0 to 255, shape (height, width, 3)."""


class ArraySource:
    """Images in memory.

    Args:
        images: uint8, 0 to 255, shape (n, height, width, 3).
        labels: Class indices, shape (n,) or (n, 1).
        class_names: Name of each class; None: their numbers.

    Raises:
        ValueError: Another dtype or shape, no image, or a label outside the classes.
    """

    def __init__(self, images: np.ndarray, labels: Any, class_names: Sequence[str] | None = None) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                "Images in an array are uint8, 0 to 255, of shape (n, height, width, 3); received "
                f"{images.dtype} of shape {images.shape}."
            )
        labels = np.asarray(labels)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"Labels are one integer an image; received {labels.dtype} of shape {labels.shape} for "
                f"{len(images)} images."
            )
        if len(images) == 0:
            raise ValueError("There is no image in the array; at least one is needed.")
        names = tuple(map(str, range(int(labels.max()) + 1) if class_names is None else class_names))
        if labels.min() < 0 or labels.max() >= len(names):
            raise ValueError(
                f"Labels must lie from 0 to {len(names) - 1}, as there are {len(names)} classes; received "
                f"{labels.min()} to {labels.max()}."
            )
        self._images = images
        self.labels: np.ndarray = labels.astype(np.int64)
        self.class_names = names
        digest = hashlib.sha256(np.ascontiguousarray(images[:: max(1, len(images) // 256)]).tobytes())
        digest.update(self.labels.tobytes() + repr((images.shape, names)).encode())
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        """One image, uint8, shape (height, width, 3)."""
        return self._images[index]


class FolderSource:
    """Image files in one folder a class.

    Args:
        files: Paths of images.
        labels: Class index of each.
        class_names: Name of each class.
    """

    def __init__(self, files: Sequence[pathlib.Path], labels: Sequence[int], class_names: Sequence[str]) -> None:
        self.files = tuple(files)
        self.labels = np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        listing = "\n".join(f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in self.files)
        self.fingerprint = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        """One image, upright RGB, uint8, shape (height, width, 3)."""
        return np.asarray(load_image(self.files[index]))


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train and to validate on.

    Args:
        name: What the user called it.
        train: Images for training.
        validation: Images for validation, of the same classes.
        broken: Files that were left out, and why.
    """

    name: str
    train: ImageSource
    validation: ImageSource
    broken: tuple[tuple[str, str], ...] = ()


def open_data(
    name: str | os.PathLike,
    *,
    validation_split: float = 0.2,
    strict: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Data:
    """Opens labelled images by what the user calls them.

    Args:
        name: A folder with one folder of images a class, or with `train` and `val` (or `validation`,
            `test`) of that kind; an `.npz` file with `x_train`, `y_train`, `x_test`, `y_test` and,
            if it likes, `class_names`; "sample" for the bundled images; or a name in
            `keras.datasets` ("cifar10", "cifar100"), which downloads it.
        validation_split: Share of each class that is held back, chosen by the files' names, where
            a folder has no `val`; between 0 and 1.
        strict: Whether a file that is no readable image is an error, instead of being left out.
        progress: Wraps the iterable of files while they are checked.

    Returns:
        The `Data`.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: No images, fewer than two classes, other classes in validation than in
            training, a label outside the classes, or a broken file under `strict`.
    """
    path = pathlib.Path(name)
    if path.is_dir():
        return _open_folder(path, validation_split, strict, progress)
    if path.suffix == ".npz":
        if not path.is_file():
            raise FileNotFoundError(f"There is no file at {os.fspath(path)!r}.")
        with np.load(path) as arrays:
            missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays.files)
            if missing:
                raise ValueError(
                    f"{os.fspath(path)!r} must hold x_train, y_train, x_test and y_test; {', '.join(sorted(missing))} "
                    "is missing."
                )
            names = arrays["class_names"] if "class_names" in arrays.files else None
            return _of_arrays(
                str(name), arrays["x_train"], arrays["y_train"], arrays["x_test"], arrays["y_test"], names
            )
    if str(name) == "sample":
        sample = load_sample()
        return _of_arrays("sample", sample.x_train, sample.y_train, sample.x_test, sample.y_test, sample.class_names)
    dataset = getattr(keras.datasets, str(name), None)
    if dataset is not None and str(name).startswith("cifar"):
        (x_train, y_train), (x_test, y_test) = dataset.load_data()
        names = load_sample().class_names if name == "cifar10" else None
        return _of_arrays(str(name), x_train, y_train, x_test, y_test, names)
    raise FileNotFoundError(
        f"{os.fspath(name)!r} is no folder of images, no .npz file, and neither 'sample', 'cifar10' nor 'cifar100'."
    )


def _of_arrays(
    name: str, x_train: Any, y_train: Any, x_test: Any, y_test: Any, class_names: Sequence[str] | None
) -> Data:
    train = ArraySource(x_train, y_train, class_names)
    return Data(name, train, ArraySource(x_test, y_test, train.class_names))


def _open_folder(
    path: pathlib.Path, validation_split: float, strict: bool, progress: Callable[[Iterable], Iterable]
) -> Data:
    train_folder = path / "train"
    held_back = next((path / name for name in ("val", "validation", "test") if (path / name).is_dir()), None)
    if not train_folder.is_dir() or held_back is None:
        files, labels, names = _listing(path)
        files, labels, broken = _readable(files, labels, strict, progress)
        train, validation = _split(files, labels, names, validation_split)
        return Data(os.fspath(path), train, validation, broken)
    sources: list[FolderSource] = []
    faults: list[tuple[str, str]] = []
    train_names = _class_names(train_folder)
    names = _class_names(held_back)
    if names != train_names:
        only_train, only_held = sorted(set(train_names) - set(names)), sorted(set(names) - set(train_names))
        raise ValueError(
            f"The classes of {os.fspath(train_folder)!r} and {os.fspath(held_back)!r} must be the same; only in the "
            f"first: {', '.join(only_train) or 'none'}; only in the second: {', '.join(only_held) or 'none'}."
        )
    for folder in (train_folder, held_back):
        files, labels, names = _listing(folder)
        files, labels, bad = _readable(files, labels, strict, progress)
        faults.extend(bad)
        sources.append(_checked(FolderSource(files, labels, names), folder))
    return Data(os.fspath(path), sources[0], sources[1], tuple(faults))


def _class_names(folder: pathlib.Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _listing(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[int], list[str]]:
    names = _class_names(folder)
    if len(names) < 2:
        raise ValueError(
            f"{os.fspath(folder)!r} must hold one folder of images for each of at least two classes; found "
            f"{len(names)}: {', '.join(names) or 'none'}."
        )
    files, labels = [], []
    for index, name in enumerate(names):
        for file in sorted((folder / name).rglob("*")):
            if file.suffix.lower() in IMAGE_FILES and file.is_file():
                files.append(file)
                labels.append(index)
    if not files:
        raise ValueError(f"No image lies in the class folders of {os.fspath(folder)!r} ({', '.join(IMAGE_FILES)}).")
    return files, labels, names


def _readable(
    files: list[pathlib.Path], labels: list[int], strict: bool, progress: Callable[[Iterable], Iterable]
) -> tuple[list[pathlib.Path], list[int], tuple[tuple[str, str], ...]]:
    with concurrent.futures.ThreadPoolExecutor() as pool:
        faults = list(progress(pool.map(_fault, files)))
    broken = tuple((os.fspath(file), fault) for file, fault in zip(files, faults, strict=True) if fault)
    if broken and strict:
        listed = "; ".join(f"{file}: {fault}" for file, fault in broken[:5])
        raise ValueError(f"{len(broken)} of {len(files)} files cannot be read as images: {listed}")
    kept = [(file, label) for file, label, fault in zip(files, labels, faults, strict=True) if not fault]
    return [file for file, _ in kept], [label for _, label in kept], broken


def _fault(file: pathlib.Path) -> str | None:
    """Why a file is no readable image, or None; JPEGs are read whole, but at an eighth of their size."""
    if file.stat().st_size == 0:
        return "empty (0 bytes)"
    try:
        with Image.open(file) as image:
            image.draft("RGB", (1, 1))
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        return str(error).replace(repr(os.fspath(file)), "it")
    return None


def _split(
    files: list[pathlib.Path], labels: list[int], names: list[str], share: float
) -> tuple[FolderSource, FolderSource]:
    if not 0 < share < 1:
        raise ValueError(f"`validation_split` must lie between 0 and 1; received {share!r}.")
    parts: tuple[list, list] = ([], [])
    for label in range(len(names)):
        # By a hash of the name, so that a file stays on its side when others come and go.
        own = sorted(
            (file for file, other in zip(files, labels, strict=True) if other == label),
            key=lambda file: hashlib.sha256(file.name.encode()).digest(),
        )
        held = max(1, round(len(own) * share)) if len(own) > 1 else 0
        parts[1].extend((file, label) for file in own[:held])
        parts[0].extend((file, label) for file in own[held:])
    train, validation = (FolderSource([f for f, _ in part], [i for _, i in part], names) for part in parts)
    return _checked(train, "training"), _checked(validation, "validation")


def _checked(source: FolderSource, where: Any) -> FolderSource:
    counts = np.bincount(source.labels, minlength=len(source.class_names))
    empty = [name for name, count in zip(source.class_names, counts, strict=True) if count == 0]
    if empty:
        raise ValueError(f"Each class needs a readable image; for {where} there is none of: {', '.join(empty)}.")
    return source


class _Indices:
    """The positions of a source as what Grain reads, so that nothing is decoded before it is needed."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> int:
        return int(index)


def training_batches(
    source: ImageSource,
    prepared: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    transforms: Sequence[Transform] = (),
    batch_transforms: Sequence[BatchTransform] = (),
    epochs: int = 1,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Any:
    """Shuffled, augmented batches in an order that only the seed decides.

    Each epoch has its own order and its own augmentation; what is left of the images over whole
    batches is left out of that epoch. The pixels of step k are the same whatever was read before,
    however many threads read, and on every backend.

    Args:
        source: The images.
        prepared: The size (and, without a random crop among the transforms, the resizing) of the result.
        batch_size: Images in a batch, over all shards.
        seed: Any integer from 0.
        transforms: Of each image, in order.
        batch_transforms: Of each batch and its one-hot labels.
        epochs: How many follow one another.
        start: Step, counted over all epochs, to begin with.
        shard: Which part of every batch is read here, and of how many.
        threads: How many read ahead.

    Returns:
        A Grain dataset of (images, labels): images of shape (batch, height, width, 3), uint8 (float32 after
        mixup), and one-hot labels of shape (batch, classes), float32.

    Raises:
        ValueError: Fewer images than a batch has, or a batch that the shards do not divide.
    """
    grain = _grain()
    part, parts = shard
    if len(source) < batch_size:
        raise ValueError(
            f"A batch takes {batch_size} images, but there are {len(source)} for training; choose a smaller batch_size."
        )
    if batch_size % parts:
        raise ValueError(f"{parts} processes must share a batch evenly; received batch_size={batch_size}.")
    size = prepared.height_width
    crops = any(isinstance(transform, RandomAreaCrop) for transform in transforms)
    steps = [
        dataclasses.replace(transform, size=size)
        if isinstance(transform, RandomAreaCrop) and transform.size is None
        else transform
        for transform in transforms
    ]
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        image = source[index]
        if not crops:
            image = fitted(image, prepared)
        for step in steps:
            image = step(image, rng)
        return image, one_hot[source.labels[index]]

    def change(batch: tuple[np.ndarray, np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        images, labels = batch
        for step in batch_transforms:
            images, labels = step(images, labels, rng)
        return images, labels

    whole = len(source) // batch_size * batch_size
    dataset = grain.MapDataset.source(_Indices(len(source))).seed(seed).shuffle()[:whole].random_map(read)
    dataset = dataset[part::parts].batch(batch_size // parts, drop_remainder=True)
    if batch_transforms:
        dataset = dataset.random_map(change)
    dataset = dataset.repeat(epochs)[start:]
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def evaluation_batches(
    source: ImageSource, prepared: Preprocessing, *, batch_size: int = 128, epochs: int = 1, threads: int = 2
) -> Any:
    """All images in order, resized and cropped as the network wants it.

    Args:
        source: The images.
        prepared: Size, crop and interpolation.
        batch_size: Images in a batch; the last of an epoch may be smaller.
        epochs: How many follow one another.
        threads: How many read ahead.

    Returns:
        A Grain dataset of (images, labels) as of `training_batches`.
    """
    grain = _grain()
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        return fitted(source[index], prepared), one_hot[source.labels[index]]

    dataset = grain.MapDataset.source(_Indices(len(source))).map(read).batch(batch_size).repeat(epochs)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def evaluation_parts(
    source: ImageSource,
    prepared: Preprocessing,
    *,
    batch_size: int,
    epochs: int = 1,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
) -> Any:
    """All images in order, for devices that share each batch evenly: images of no weight fill up the last one.

    With k batches of b for n images, the others weigh k b / n each. Keras averages the weighted loss over k b rows,
    and what it gives in `weighted_metrics` over the weights, so that both are exactly the means over the n images.

    Args:
        source: The images.
        prepared: Size, crop and interpolation.
        batch_size: Images in a batch, over all shards.
        epochs: How many follow one another.
        shard: Which part of every batch is read here, and of how many.
        threads: How many read ahead.

    Returns:
        A Grain dataset of (images, labels, weights): the first two as of `training_batches`, weights
        of shape (batch,), float32.

    Raises:
        ValueError: A batch that the shards do not divide.
    """
    grain = _grain()
    part, parts = shard
    if batch_size % parts:
        raise ValueError(f"{parts} processes must share a batch evenly; received batch_size={batch_size}.")
    images = len(source)
    rows = -(-images // batch_size) * batch_size
    one_hot: np.ndarray = np.eye(len(source.class_names), dtype=np.float32)

    def read(row: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        index = min(row, images - 1)
        weight = np.float32(rows / images if row < images else 0.0)
        return fitted(source[index], prepared), one_hot[source.labels[index]], weight

    dataset = grain.MapDataset.source(_Indices(rows)).map(read)[part::parts].batch(batch_size // parts).repeat(epochs)
    return dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))


def for_fit(batches: Any) -> Any:
    """Batches in the form in which `fit` reads them without standing still.

    Keras on TensorFlow wraps a Grain dataset into `tf.data`, whose tuning thread sleeps for up to a minute and is
    waited for whenever an iterator is given up, which is at the end of every epoch and validation. Here it is wrapped
    with that tuning switched off. Other backends read Grain as it is.

    Args:
        batches: What the functions above return.

    Returns:
        A `tf.data.Dataset` on TensorFlow, else the same dataset.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), next(iter(batches))
    )
    dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
    return dataset.prefetch(2).with_options(options)


def fitted(image: np.ndarray, prepared: Preprocessing) -> np.ndarray:
    """An image at a network's input size: as it is if it has it, else resized and cropped.

    Args:
        image: RGB, uint8, 0 to 255, shape (height, width, 3).
        prepared: Size, crop and interpolation.

    Returns:
        Of the same kind, shape (*prepared.height_width, 3).
    """
    if image.shape[:2] == prepared.height_width:
        return image
    return preprocess(image, prepared)[0].astype(np.uint8)


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise missing_package("grain", "train", "Reading images for training") from error
    return grain
