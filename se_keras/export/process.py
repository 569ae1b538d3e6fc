"""Models in separate processes, with their own threads and memory, where a crash becomes an error."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from se_keras.errors import one_of
from se_keras.export.inputs import Feed
from se_keras.export.runtime import RUNTIMES, format_of

# Chromium's and Chrome's software driver, which computes on the CPU in place of a GPU.
SOFTWARE_DRIVERS = (
    "/usr/lib/chromium/vk_swiftshader_icd.json",
    "/usr/lib/chromium-browser/vk_swiftshader_icd.json",
    "/usr/lib64/chromium-browser/vk_swiftshader_icd.json",
    "/opt/google/chrome/vk_swiftshader_icd.json",
)
DRIVER_FOLDERS = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d")
DRIVER_VARIABLES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")
FURTHER_DRIVERS = "VK_ADD_DRIVER_FILES"


TIMED_SIZE = 224  # of dimensions of any size


class RuntimeRefusedError(RuntimeError):
    """A runtime's refusal to open or run a model, or a crash in doing so; the message quotes the runtime."""


class Worker:
    """A context manager that runs one model in one runtime in a new process.

    Args:
        path: The file or folder.
        runtime: A key of `RUNTIMES`. Default: the file's own.
        threads: CPU threads, at least 1.

    Attributes:
        batch: Samples per call of the runtime; None for any number.

    Raises:
        RuntimeRefusedError: The runtime does not open the model.
    """

    def __init__(self, path: str | os.PathLike, *, runtime: str | None = None, threads: int = 1) -> None:
        self.runtime = one_of("runtime", runtime or format_of(path), RUNTIMES)
        self.folder = tempfile.TemporaryDirectory(prefix="se_keras_worker")
        self.messages = open(os.path.join(self.folder.name, "messages"), "w+b")  # noqa: SIM115  closed with the worker
        here = pathlib.Path(__file__).parent
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
        if self.runtime == "tflite_gpu":
            environment |= gpu_environment(self.folder.name)
        known = {}
        if self.runtime == "keras":
            import keras

            environment["KERAS_BACKEND"] = keras.backend.backend()
            known = {"sys_path": sys.path, "custom_objects": _custom_objects()}
        self.process = subprocess.Popen(
            [sys.executable, os.fspath(here / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.messages,
            env=environment,
            text=True,
        )
        setup = {
            "path": os.path.abspath(path),
            "runtime": self.runtime,
            "threads": threads,
            "root": os.fspath(here.parent.parent),
            **known,
        }
        try:
            self.batch = self._ask(setup)["batch"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.messages):
            if stream is not None:
                stream.close()
        self.folder.cleanup()

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Runs the model; arguments and result as in `Runner.run`."""
        files = {name: os.path.join(self.folder.name, f"{name}.npz") for name in ("inputs", "outputs")}
        np.savez(files["inputs"], **feed)  # type: ignore[arg-type]
        self._ask({"command": "run", **files})
        with np.load(files["outputs"]) as outputs:
            return dict(outputs)

    def time(self, batch: int = 1) -> float:
        """Times one call.

        Args:
            batch: Number of samples, at least 1. A file with a fixed batch processes them sequentially.

        Returns:
            Wall-clock seconds of the runtime alone.
        """
        return self._ask({"command": "time", "batch": batch, "size": TIMED_SIZE})["seconds"]

    def peak_memory(self) -> int:
        """Returns the peak memory in bytes that opening and running the model added to its idle runtime so far."""
        return self._ask({"command": "memory"})["peak_bytes"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self.process.stdin, self.process.stdout
        try:
            if stdin is None or stdout is None:
                raise RuntimeRefusedError(f"{RUNTIMES[self.runtime]} has been closed.")
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"its process ended with code {self.process.wait()}"}
        if "error" in answer:
            raise RuntimeRefusedError(
                f"{RUNTIMES[self.runtime]} refuses the model: {answer['error']}{self._last_words()}"
            )
        return answer

    def _last_words(self) -> str:
        self.messages.seek(0)
        lines = self.messages.read().decode(errors="replace").splitlines()
        words = [line for line in lines if line.startswith(("ERROR", "E0", "Error")) or "not supported" in line]
        return "\n" + "\n".join(words[-5:]) if words else ""


def _custom_objects() -> dict[str, tuple[str, str]]:
    """Returns where to import the user's registered Keras objects from, by the names that saved models use."""
    import keras

    places = {name: (value.__module__, value.__qualname__) for name, value in keras.saving.get_custom_objects().items()}
    return {name: place for name, place in places.items() if place[0].split(".")[0] not in ("__main__", "se_keras")}


def gpu_environment(folder: str | os.PathLike) -> dict[str, str]:
    """Returns the environment variables that let LiteRT find a Vulkan driver.

    A driver named by the environment takes precedence. Otherwise, the variables name Chromium's software driver, which
    computes on the CPU in place of a GPU, but slower. Where drivers are installed, it is added to them: they may find
    no GPU, and the Vulkan loader lists GPUs first.

    Args:
        folder: A runtime folder for the driver, used on machines that do not provide one.

    Returns:
        Variables to add to the environment.
    """
    variables = {} if "XDG_RUNTIME_DIR" in os.environ else {"XDG_RUNTIME_DIR": os.fspath(folder)}
    driver = next((path for path in SOFTWARE_DRIVERS if os.path.isfile(path)), None)
    if driver is None or any(name in os.environ for name in (*DRIVER_VARIABLES, FURTHER_DRIVERS)):
        return variables
    installed = any(any(pathlib.Path(place).glob("*.json")) for place in DRIVER_FOLDERS)
    return variables | dict.fromkeys([FURTHER_DRIVERS] if installed else DRIVER_VARIABLES, driver)


def is_missing_driver(refusal: RuntimeRefusedError) -> bool:
    """Returns whether a refusal is due to a missing GPU driver or package, not to the model.

    Args:
        refusal: The error raised by a `Worker` of runtime "tflite_gpu".

    Returns:
        True if no GPU is available.
    """
    signs = ("No adapters found", "WebGPU environment", "GPU accelerator could not", "No module named", "ImportError")
    return any(sign in str(refusal) for sign in signs)
