"""Time and memory for loading weights.

    python benchmarks/weights.py

Measures the conversion of a checkpoint with timm's names (generated here in the real size) from
safetensors, in a separate process to isolate its memory; and, interleaved, loading our converted
copy against Keras loading its own `.weights.h5` of the same network.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from timing import interleaved, report, summary

CONVERT = """
import resource, sys, time
import se_keras
from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS
from se_keras.weights.convert import assign, convert
from se_keras.weights.readers import read_tensors
model = assemble({model!r}, NETWORKS[{model!r}], Options(input_shape=(None, None, 3)))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, started = peak(), time.perf_counter()
assign(model, convert(read_tensors({path!r}), model, "timm_legacy"))
print(time.perf_counter() - started, peak() - before)
"""


def make_checkpoint(model: str, path: pathlib.Path) -> None:
    """Writes a checkpoint with timm's legacy names and random values."""
    import numpy as np
    from safetensors.numpy import save_file

    from se_keras.models.network import Options, assemble
    from se_keras.models.registry import NETWORKS
    from se_keras.weights.convert import expected_tensors

    network = assemble(model, NETWORKS[model], Options(input_shape=(None, None, 3)))
    random = np.random.default_rng(0)
    shapes = expected_tensors(network, "timm_legacy")
    save_file({name: random.random(shape, "float32") for name, shape in shapes.items()}, path)


def time_conversion(model: str, folder: pathlib.Path) -> dict[str, float]:
    path = folder / f"{model}.safetensors"
    make_checkpoint(model, path)
    seconds, memory = [], []
    for _ in range(3):
        code = CONVERT.format(model=model, path=str(path))
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        second, byte = map(float, done.stdout.split())
        seconds.append(second)
        memory.append(byte)
    size = path.stat().st_size
    row = {"median_s": sorted(seconds)[1], "file_MB": size / 1e6, "extra_memory_over_file": sorted(memory)[1] / size}
    path.unlink()
    return row


def time_loading(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    import se_keras
    from se_keras.weights.files import save_safetensors
    from se_keras.weights.find import find_record
    from se_keras.weights.load import load

    model = se_keras.SEResNet50(weights=None)
    ours = save_safetensors(model, folder / "ours.safetensors")
    keras_file = folder / "keras.weights.h5"
    model.save_weights(keras_file)
    contestants = {
        "Keras .weights.h5": lambda: model.load_weights(keras_file),
        "se_keras .safetensors": lambda: load(find_record("se_resnet50", ours), model),
    }
    return summary(interleaved(contestants, rounds=9), reference="Keras .weights.h5")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        converted = {model: time_conversion(model, folder) for model in ("se_resnet50", "senet154")}
        loaded = time_loading(folder)
    extra_memory = converted["se_resnet50"]["extra_memory_over_file"]
    return report(
        "weights",
        {"conversion from safetensors": converted, "loading SE-ResNet-50 from a cache (s)": loaded},
        limits={
            "seconds to convert SE-ResNet-50": (converted["se_resnet50"]["median_s"], 3),
            "extra memory to convert SE-ResNet-50, relative to the file": (extra_memory, 1.5),
            "seconds to convert SENet-154": (converted["senet154"]["median_s"], 12),
            "loading from the cache, relative to Keras' .weights.h5": (loaded["se_keras .safetensors"]["ratio"], 1.2),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
