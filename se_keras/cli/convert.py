"""`se-keras convert`: a checkpoint becomes a file that Keras loads."""

from __future__ import annotations

import argparse
import os
import pathlib

from se_keras.cli.console import console, published
from se_keras.files import replacing
from se_keras.models.registry import create_model
from se_keras.weights.files import save_safetensors
from se_keras.weights.keras_files import KERAS_FILES


def run(options: argparse.Namespace) -> int:
    """Writes a checkpoint as a file that Keras loads."""
    target = pathlib.Path(options.to)
    if target.exists() and not options.overwrite:
        raise FileExistsError(f"{options.to!r} exists already. Add --overwrite to replace it.")
    if not options.to.endswith((*KERAS_FILES, ".safetensors")):
        raise ValueError(
            f"--to takes a file that ends in .keras, .weights.h5 or .safetensors; received {options.to!r}."
        )
    if os.path.isfile(options.checkpoint):
        if not options.model:
            raise ValueError("A file does not say which network it belongs to; name it with --model.")
        model = create_model(options.model, weights=options.checkpoint)
    else:
        model = published(options.checkpoint)
    if options.to.endswith(".safetensors"):
        save_safetensors(model, target)
    else:
        with replacing(target, overwrite=True) as temporary:
            model.save(temporary) if options.to.endswith(".keras") else model.save_weights(temporary)
    console.print(f"{options.to}: {model.name}, {target.stat().st_size / 1e6:.1f} MB")
    return 0
