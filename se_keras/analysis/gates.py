"""Collection of the gates of every SE block over a dataset: level, variation, and dependence on the class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from se_keras.analysis.gate_statistics import GateStatistics
from se_keras.analysis.results import Gates
from se_keras.errors import check_count
from se_keras.surgery.forward import forward
from se_keras.surgery.graph import build_model, read_graph
from se_keras.surgery.probe import probe_gates


def collect_gates(
    model: keras.Model,
    data: Any,
    *,
    labels: Any = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    title: str = "images",
    batch_size: int = 32,
    bins: int = 100,
    samples: int = 0,
    verbose: str | int = "auto",
) -> Gates:
    """Collects the gates of every SE block over a dataset, in one forward pass and constant memory.

    Reference: Hu et al., arXiv 1709.01507v4, section 7.2 and figure 7. The paper shows mean gates of four
    classes. This function adds standard deviations, quantiles, saturation, and the share of the
    variance that is between classes.

    Args:
        model: A functional model with SE blocks and its preprocessing. The blocks may be
            `SqueezeExcite` layers, or a squeeze, projections, and a product made of other layers or
            `keras.ops`, as in `keras.applications`; nested models are expanded. It is not changed.
        data: Images in the scale of the model's input: an array of shape (n, height, width,
            channels), a dictionary of arrays for several inputs, (arrays, labels), or a finite dataset that
            `fit` takes, such as a `tf.data.Dataset`, of batches x or (x, labels).
        labels: Integer labels, shape (n,), or one-hot rows, (n, classes), if `data` has none.
            None: all images belong to one class.
        class_names: Class names in the order of the labels, or a mapping from the labels that occur to
            names. Each class must have images. Default: the labels that occur.
        title: Description of the images for the titles of figures, such as "CIFAR-10 test".
        batch_size: Images per batch if `data` is an array; at least 1.
        bins: Histogram bins over the gate's range, at least 1, for computing quantiles; they take
            4 bytes per bin, class, and channel. 0: no quantiles.
        samples: Number of images, sampled at random but reproducibly, whose individual gates are kept.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        A `Gates`.

    Raises:
        ValueError: The model is subclassed or has no SE blocks; there are no images; the labels have a different
            length or are not classes; a class has no images or no name; or the histograms exceed 1 GiB.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3))
    >>> gates = collect_gates(SEResNet20(), images, labels=[0, 1] * 4, class_names=["cat", "dog"], verbose=0)
    >>> gates.block("stage2_block1_se").mean.shape
    (2, 16)
    """
    bins, samples = check_count("bins", bins, least=0), check_count("samples", samples, least=0)
    names = _named(class_names)
    probe = probe_gates(read_graph(model))
    observer = build_model(dataclasses.replace(probe.graph, outputs=list(probe.gates)))
    statistics = GateStatistics(probe, bins, samples, names)
    batches = forward(observer, data, labels, batch_size=batch_size, title="Collecting gates", verbose=verbose)
    for _, outputs, classes in batches:
        statistics.add(outputs, classes)
    return statistics.result(model.name, title)


class ImageGates(NamedTuple):
    """The gates, (channels,), and the input map, (..., channels), of one block for one image."""

    gates: np.ndarray
    maps: np.ndarray


def image_gates(model: keras.Model, image: np.ndarray) -> dict[str, ImageGates]:
    """Returns the gates of every SE block for one image, and the feature maps that they scale.

    Args:
        model: As in `collect_gates`.
        image: One image in the scale of the model's input, without a batch axis.

    Returns:
        A dictionary from the name of each block to its gates and the map they scale, channels last.

    Raises:
        ValueError: As in `collect_gates`.
    """
    probe = probe_gates(read_graph(model))
    sources = [one.map for one in probe.excitations]
    observer = build_model(dataclasses.replace(probe.graph, outputs=[*probe.gates, *sources]))
    ((_, outputs, _),) = forward(observer, np.asarray(image)[None])
    values: list[np.ndarray] = [x[0].astype("float32") for x in outputs]
    count = len(probe.names)
    found = {}
    for name, one, gates, maps in zip(probe.names, probe.excitations, values[:count], values[count:], strict=True):
        found[name] = ImageGates(gates, np.moveaxis(maps, one.axis - 1, -1))
    return found


def _named(class_names: Sequence[str] | Mapping[int, str] | None) -> dict[int, str] | None:
    if class_names is None:
        return None
    pairs = class_names.items() if isinstance(class_names, Mapping) else enumerate(class_names)
    return {int(index): str(name) for index, name in pairs}
