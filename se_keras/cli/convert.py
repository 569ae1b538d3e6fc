"""`se-keras convert`: writes a checkpoint as a file that Keras loads."""

from __future__ import annotations

import argparse
import os
import pathlib

from se_keras.cli.console import console, print_json
from se_keras.cli.models import published
from se_keras.files import check_targets, kind_of
from se_keras.models.registry import create_model, lost_without_config
from se_keras.weights.files import save_safetensors
from se_keras.weights.keras_files import KERAS_FILES, save_keras_file


def run(options: argparse.Namespace) -> int:
    """Writes a checkpoint as a file that Keras loads."""
    target = pathlib.Path(options.to)
    if not options.to.endswith((*KERAS_FILES, ".safetensors")):
        raise ValueError(f"--to must end in .keras, .weights.h5, or .safetensors; received {options.to!r}.")
    check_targets({target: kind_of(target)}, overwrite=options.overwrite)
    if os.path.isfile(options.checkpoint):
        if not options.model:
            raise ValueError("A file does not say which network it belongs to; name the network with --model.")
        model = create_model(options.model, weights=options.checkpoint)
    else:
        model = published(options.checkpoint)
    if options.to.endswith(".safetensors"):
        save_safetensors(model, target, overwrite=options.overwrite)
    else:
        save_keras_file(model, target, overwrite=options.overwrite)
    lost = lost_without_config(model.name, model) if options.to.endswith(".weights.h5") else ()
    size = target.stat().st_size
    if options.json:
        print_json({"file": options.to, "model": model.name, "size": size, "lost": lost})
    else:
        console.print(f"{options.to}: {model.name}, {size / 1e6:.1f} MB")
        if lost:
            console.print(
                f"A .weights.h5 file does not hold this checkpoint's {' and '.join(lost)}: a network built with "
                "weights=FILE has its own instead. Write .safetensors or .keras to keep it."
            )
    return 0
