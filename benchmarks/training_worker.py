"""A contestant of training.py: builds a network, then times one training step for every line it reads.

    python benchmarks/training_worker.py KIND NETWORK BATCH

KIND is tensorflow, jax, or torch (Keras backends), optionally followed by `:mixed_bfloat16`; timm or
timm:bfloat16 (PyTorch eager, channels last); or pipeline (reading and augmenting only).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from contestant import answer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
SIZES = {"se_resnet20": 32, "se_resnet50": 224}


def with_keras(kind: str, network: str, batch: int) -> Callable[[], object]:
    backend, _, precision = kind.partition(":")
    os.environ["KERAS_BACKEND"] = backend
    import keras
    import numpy as np

    import se_keras

    keras.config.set_dtype_policy(precision or "float32")
    model = se_keras.create_model(network)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    size = SIZES[network]
    images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
    labels = np.random.default_rng(1).integers(0, model.output_shape[-1], batch)
    return lambda: model.train_on_batch(images, labels)


def timm_model(network: str) -> Any:
    """Returns timm's network or, for small images, one of the same stages and widths from timm's parts."""
    import timm
    import torch
    from timm.models.resnet import BasicBlock, ResNet

    if network == "se_resnet50":
        return timm.create_model("legacy_seresnet50")
    # Its deep stem has the required width; a single convolution without pooling replaces it.
    body = {"channels": (16, 32, 64), "stem_type": "deep", "stem_width": 8, "block_args": {"attn_layer": "se"}}
    model = ResNet(BasicBlock, (3, 3, 3), num_classes=10, **body)
    model.conv1 = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False)
    model.maxpool = model.layer4 = torch.nn.Identity()
    return model


def with_timm(kind: str, network: str, batch: int) -> Callable[[], object]:
    import torch

    model = timm_model(network).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    size = SIZES[network]
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, model.num_classes, (batch,))

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=kind.endswith(":bfloat16")):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def pipeline(kind: str, network: str, batch: int) -> Callable[[], object]:
    import itertools
    import pathlib
    import tempfile

    import numpy as np
    from PIL import Image

    from se_keras.models.registry import get_preprocessing
    from se_keras.training.augment import PadAndCrop, RandomAreaCrop, RandomFlip
    from se_keras.training.batches import training_batches
    from se_keras.training.sources import FolderSource, load_sample
    from se_keras.training.sources import open_data as opened

    prepared = get_preprocessing(network)
    if network == "se_resnet20":
        source, transforms = opened("sample").train, (PadAndCrop(), RandomFlip())
    else:
        # Photos of typical size: the bundled images, enlarged, as JPEG files.
        folder, sample = pathlib.Path(tempfile.mkdtemp()), load_sample()
        files = [folder / f"{index}.jpg" for index in range(64)]
        for file, pixels in zip(files, sample.x_train, strict=False):
            noise = np.random.default_rng(0).integers(-12, 12, (375, 500, 3))
            large = np.asarray(Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC)) + noise
            Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(file, quality=90)
        source, transforms = FolderSource(files, [0] * 64, ["any", "other"]), (RandomAreaCrop(), RandomFlip())
    batches = training_batches(source, prepared, batch_size=batch, seed=0, transforms=transforms, epochs=10**6)
    steps = itertools.cycle([iter(batches)])
    return lambda: [next(next(steps)) for _ in range(BATCHES_READ)]


# Many more than are prefetched while the others take their turns; the call before the timed one consumes those.
BATCHES_READ = 64


def main() -> None:
    kind, network, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    make = {"timm": with_timm, "pipeline": pipeline}.get(kind.partition(":")[0], with_keras)
    reading = {"settling": 1e-3, "parts": BATCHES_READ} if make is pipeline else {}
    answer(lambda: make(kind, network, batch), warmups=2, **reading)


if __name__ == "__main__":
    main()
