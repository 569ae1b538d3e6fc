"""Training on several devices or machines, on the engines that the backends have for it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

# Seconds without a sign of life after which a process counts as dead; JAX's own default is 100.
HEARTBEAT = 30
NO_MULTI_WORKER = (
    "TensorFlow's MultiWorkerMirroredStrategy does not work with Keras 3 (keras-team/keras#20585): train on several "
    "machines on the JAX backend, with KERAS_BACKEND=jax and `distribute.join`."
)


class ProcessFailedError(RuntimeError):
    """A training cannot go on because another of its processes failed or is gone."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that train together, as one of them sees them.

    Each reads its part of every batch; process 0 alone writes into the run's folder, which all read.

    Args:
        index: Number of this process, from 0.
        count: How many processes there are.
        devices: Devices of all processes together; each takes an equal part of a batch.

    Example:

    >>> Processes(index=1, count=2, devices=2).writes
    False
    """

    index: int = 0
    count: int = 1
    devices: int = 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def check_batch_size(self, batch_size: int) -> None:
        """Refuses a batch that the devices cannot share evenly.

        Args:
            batch_size: Images in a batch over all devices.

        Raises:
            ValueError: It is no multiple of `devices`.
        """
        if batch_size % self.devices:
            raise ValueError(
                f"The devices share a batch evenly, so that its size is a multiple of their number; received "
                f"batch_size={batch_size} for {self.devices} devices. Try "
                f"{max(1, round(batch_size / self.devices)) * self.devices}."
            )

    def any(self, value: bool) -> bool:
        """Whether something is true in at least one process; each waits here for the answers of all.

        Args:
            value: Whether it is true in this one.

        Returns:
            The same in every process.
        """
        if self.count == 1:
            return value
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.array(value))))

    def in_turn(self, action: Callable[[], Any]) -> None:
        """Acts in process 0 first and then in the others; each waits here until all are done.

        Args:
            action: What to do.

        Raises:
            ProcessFailedError: Another process failed in it. The one that failed raises its own error.
        """
        for has_turn in (self.writes, not self.writes):
            failure: Exception | None = None
            if has_turn:
                try:
                    action()
                except Exception as error:
                    failure = error
            if self.any(failure is not None):
                raise failure or ProcessFailedError("Another process failed; its own output says why.")


ALONE = Processes()


@contextlib.contextmanager
def by_itself() -> Iterator[None]:
    """Lets one process do something with a model while the others go on; variables made in it are its own.

    Yields:
        Nothing. Saving a model is such a thing: Keras makes an optimiser for it, whose variables would wait for the
        other processes.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


@contextlib.contextmanager
def join(
    coordinator: str | None = None, process_id: int | None = None, num_processes: int | None = None
) -> Iterator[Processes]:
    """Joins the processes of a training on the JAX backend, on one machine or several.

    Build the model and train it inside. All processes run the same program and must build the same
    weights: call `keras.utils.set_random_seed` with one number before. Batch norm sees the whole batch, as on one
    device. A process that is silent for half a minute counts as dead, and the others end with an error.

    Args:
        coordinator: "HOST:PORT" of process 0, which must be free there and reachable from all.
        process_id: Number of this process, from 0 to `num_processes - 1`.
        num_processes: How many there are; 1: only this one, with all devices of the machine. On Slurm, Open
            MPI and TPU, JAX finds all three by itself: leave them out.

    Yields:
        The `Processes`, for `train`.

    Raises:
        ValueError: Another backend than JAX, some of the three without the others where they are
            needed, or a number out of range.
        ProcessFailedError: A computation shared with the other processes broke off.

    Example:

        with join("10.0.0.1:1234", process_id=0, num_processes=2) as processes:
            keras.utils.set_random_seed(0)
            model = SEResNet50(weights=None, classes=10)
            train(model, data, recipe, "runs/photos", processes=processes)
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Several processes train together on the JAX backend only; received {keras.backend.backend()!r}. Set "
            f"KERAS_BACKEND=jax. {NO_MULTI_WORKER if keras.backend.backend() == 'tensorflow' else ''}".rstrip()
        )
    import jax

    if num_processes != 1:
        _initialize(coordinator, process_id, num_processes)
    distribution = keras.distribution.DataParallel(devices=keras.distribution.list_devices(), auto_shard_dataset=False)
    processes = Processes(jax.process_index(), jax.process_count(), jax.device_count())
    with distribution.scope():
        try:
            yield processes
        except (RuntimeError, ValueError) as error:
            if processes.count == 1 or not _is_of_communication(error):
                raise
            raise ProcessFailedError(
                f"Process {processes.index} of {processes.count} cannot go on: {str(error).splitlines()[0]} If another "
                "process has ended, its own output says why. What was saved is whole: start all of them again to "
                "resume."
            ) from error
    if processes.count > 1:
        # Otherwise JAX would end what a process still does by itself soon after another has ended.
        processes.any(False)
        jax.distributed.shutdown()


def _is_of_communication(error: Exception) -> bool:
    """Whether JAX could not talk to another process; it has no exception for that alone."""
    return any(name in str(error) for name in ("Gloo", "NCCL", "coordination service", "distributed service"))


def _initialize(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    import jax

    given = {"coordinator": coordinator, "process_id": process_id, "num_processes": num_processes}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(
            f"The coordinator's address, the process's number and the number of processes belong together; received "
            f"{given}. Give all of them, or none where JAX finds them by itself (Slurm, Open MPI, TPU)."
        )
    if process_id is not None and num_processes is not None and not 0 <= process_id < num_processes:
        raise ValueError(
            f"Processes are numbered from 0 to num_processes - 1; received process_id={process_id} of "
            f"num_processes={num_processes}."
        )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"`coordinator` is HOST:PORT of process 0; received {coordinator!r}.")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # of no effect where there is a GPU or TPU
    # `keras.distribution.initialize` cannot pass these on; JAX before 0.7 does not take them and waits for longer.
    known = inspect.signature(jax.distributed.initialize).parameters
    timeouts = {name: HEARTBEAT for name in ("heartbeat_timeout_seconds", "shutdown_timeout_seconds") if name in known}
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            process_id=process_id,
            num_processes=num_processes,
            **timeouts,
        )
    except ValueError as error:
        if missing:
            raise ValueError(
                "JAX finds no cluster here (Slurm, Open MPI, TPU). Give the coordinator's address (HOST:PORT of "
                "process 0), the process's number and the number of processes, or num_processes=1 for all devices of "
                "this machine."
            ) from error
        raise


@contextlib.contextmanager
def mirrored(devices: Sequence[str] | None = None) -> Iterator[Processes]:
    """Trains on several devices of one machine on the TensorFlow backend, with `tf.distribute.MirroredStrategy`.

    Build the model and train it inside. Batch norm sees each device's part of a batch by itself, unless
    its layers are made with `synchronized=True`; `jit_compile=True` is not possible.

    Args:
        devices: TensorFlow's names, e.g. ("GPU:0", "GPU:1"); None: all GPUs, or the CPU.

    Yields:
        The `Processes`, for `train`: one, with the number of devices.

    Raises:
        ValueError: Another backend than TensorFlow, or a cluster of several workers in TF_CONFIG.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"MirroredStrategy is of the TensorFlow backend; received {keras.backend.backend()!r}. Set "
            "KERAS_BACKEND=tensorflow; on the JAX backend `distribute.join(num_processes=1)` takes all devices."
        )
    workers = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {}).get("worker", ())
    if len(workers) > 1:
        raise ValueError(
            f"MirroredStrategy is for one machine; TF_CONFIG names {len(workers)} workers. {NO_MULTI_WORKER}"
        )
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(None if devices is None else list(devices))
    with strategy.scope():
        yield Processes(devices=strategy.num_replicas_in_sync)
