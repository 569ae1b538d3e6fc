"""Processes that need not import Keras, which takes seconds: forks of one that has imported it and this package."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

LONGEST = 1800  # seconds for a piece of code: only what hangs takes so long, however busy the machine

# On JAX, compiling is nearly all of the time; the code it makes in tests runs a few times.
FAST_XLA = {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}


class WarmPython:
    """A Python that has imported Keras on a backend, and this package; each piece of code runs in a fork of it."""

    def __init__(self, backend: str) -> None:
        self._variables = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": backend,
            **(FAST_XLA if backend == "jax" else {}),
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in `close`
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **self._variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, code: str) -> subprocess.CompletedProcess:
        """Returns what `subprocess.run` returns of a new process that runs `code` in the current folder."""
        with tempfile.TemporaryDirectory() as output:
            request = {
                "code": code,
                "folder": os.getcwd(),
                "environment": {**os.environ, **self._variables},
                "output": output,
            }
            print(json.dumps(request), file=self._server.stdin, flush=True)
            status = self._server.stdout.readline()
            if not status:
                self._log.seek(0)
                raise RuntimeError(f"The warm Python has ended:\n{self._log.read()[-4000:]}")
            printed = [pathlib.Path(output, name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess(code, int(status), *printed)

    def close(self) -> None:
        self._server.kill()  # it has nothing to put in order
        self._server.communicate()
        self._log.close()


def draw_with_numpy() -> None:
    """Lets initializers draw from NumPy from now on: JAX compiles a generator for every shape, which takes longer."""
    import keras
    import numpy as np
    from keras.src.backend import random

    generator = np.random.default_rng(0)

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return keras.ops.convert_to_tensor(generator.uniform(minval, maxval, shape), dtype)

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        values = np.clip(generator.normal(size=shape), -2, 2)
        return keras.ops.convert_to_tensor(mean + stddev * values, dtype)

    random.uniform, random.normal, random.truncated_normal = uniform, normal, normal


def serve() -> str:
    """Forks for every request; returns in the forks alone, with the code to run."""
    import keras

    import se_keras  # noqa: F401

    for line in sys.stdin:
        process = os.fork()
        if not process:
            keras.utils.set_random_seed(0)  # as before every test
            return prepared(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    sys.exit()


def prepared(code: str, folder: str, environment: dict[str, str], output: str) -> str:
    """Makes of a fork what a new process would be, and returns its code."""
    signal.alarm(LONGEST)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(os.path.join(output, name), os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    return code


if __name__ == "__main__":
    exec(compile(serve(), "<string>", "exec"), {"__name__": "__main__"})
