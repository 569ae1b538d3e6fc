"""Training on several devices or machines, with the distribution engines of the backends."""

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

# Seconds of silence after which a process counts as dead; JAX's own default is 100.
HEARTBEAT = 30
NO_MULTI_WORKER = (
    "TensorFlow's MultiWorkerMirroredStrategy does not work with Keras 3 (keras-team/keras#20585): train on several "
    "machines on the JAX backend, with KERAS_BACKEND=jax and `distribute.join`."
)


class ProcessFailedError(RuntimeError):
    """An error in a run that cannot continue because another of its processes failed or ended."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that train together, as seen from one of them.

    Each reads its part of every batch; only process 0 writes into the run's folder, which all read.

    Args:
        index: Number of this process, from 0.
        count: Number of processes.
        devices: Number of devices of all processes together; each takes an equal part of a batch.

    Example:

    >>> Processes(index=1, count=2, devices=2).writes
    False
    """

    index: int = 0
    count: int = 1
    devices: int = 1

    @property
    def writes(self) -> bool:
        """Returns whether this is the process that writes."""
        return self.index == 0

    def check_batch_size(self, batch_size: int) -> None:
        """Checks whether the devices can share a batch evenly.

        Args:
            batch_size: Images per batch, over all devices.

        Raises:
            ValueError: `batch_size` is not a multiple of `devices`.
        """
        if batch_size % self.devices:
            raise ValueError(
                f"The batch size must be a multiple of the number of devices, which share a batch evenly; received "
                f"batch_size={batch_size} for {self.devices} devices. Try "
                f"{max(1, round(batch_size / self.devices)) * self.devices}."
            )

    def any(self, value: bool) -> bool:
        """Returns whether a value is true in at least one process; each process waits for the values of all.

        Args:
            value: The value in this process.

        Returns:
            The same result in every process.
        """
        if self.count == 1:
            return value
        from jax.experimental import multihost_utils

        return bool(np.any(multihost_utils.process_allgather(np.array(value))))

    def in_turn(self, action: Callable[[], Any]) -> None:
        """Runs an action in process 0 first and then in the others; each process waits until all are done.

        Args:
            action: The action.

        Raises:
            ProcessFailedError: The action failed in another process. The process that failed raises its own error.
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
    """Lets one process use a model while the others continue; variables created inside belong to it alone.

    Saving a model needs this: Keras creates an optimizer, whose variables would wait for the other processes.

    Yields:
        Nothing.
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
    """Joins the processes of a run on the JAX backend, on one machine or several.

    Build the model and train it inside. All processes run the same program and must build the same
    weights: first call `keras.utils.set_random_seed` with the same number in each. Batch normalization sees the whole
    batch, as on one device. A process that is silent for half a minute counts as dead, and the others end with an
    error.

    Args:
        coordinator: "HOST:PORT" of process 0. The port must be free there and reachable from all processes.
        process_id: Number of this process, from 0 to `num_processes - 1`.
        num_processes: Number of processes; 1 is this one alone, with all devices of the machine. On Slurm, Open
            MPI, and TPU, JAX finds all three arguments by itself: leave them out.

    Yields:
        The `Processes`, for `train`.

    Raises:
        ValueError: The backend is not JAX, some of the three arguments are missing where they are
            needed, or a number is out of range.
        ProcessFailedError: A computation shared with the other processes failed.

    Example:

        with join("10.0.0.1:1234", process_id=0, num_processes=2) as processes:
            keras.utils.set_random_seed(0)
            model = SEResNet50(weights=None, classes=10)
            train(model, data, recipe, "runs/photos", processes=processes)
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"Several processes can train together only on the JAX backend; received {keras.backend.backend()!r}. Set "
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
                f"Process {processes.index} of {processes.count} cannot continue: {str(error).splitlines()[0]} If "
                "another process has ended, its own output says why. The saved state is intact: start all processes "
                "again to resume."
            ) from error
    if processes.count > 1:
        # Otherwise JAX would end the remaining work of one process soon after another has ended.
        processes.any(False)
        jax.distributed.shutdown()


def _is_of_communication(error: Exception) -> bool:
    """Returns whether JAX could not reach another process; it has no separate exception for that."""
    return any(name in str(error) for name in ("Gloo", "NCCL", "coordination service", "distributed service"))


def _initialize(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    import jax

    given = {"coordinator": coordinator, "process_id": process_id, "num_processes": num_processes}
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise ValueError(
            f"The coordinator's address, the process's number, and the number of processes go together; received "
            f"{given}. Give all of them, or none where JAX finds them by itself (Slurm, Open MPI, TPU)."
        )
    if process_id is not None and num_processes is not None and not 0 <= process_id < num_processes:
        raise ValueError(
            f"Processes are numbered from 0 to num_processes - 1; received process_id={process_id} of "
            f"num_processes={num_processes}."
        )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"`coordinator` must be HOST:PORT of process 0; received {coordinator!r}.")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # has no effect on a GPU or TPU
    # `keras.distribution.initialize` cannot pass these arguments. JAX before 0.7 does not accept them and waits longer.
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
                "process 0), the process's number, and the number of processes, or num_processes=1 for all devices of "
                "this machine."
            ) from error
        raise


@contextlib.contextmanager
def mirrored(devices: Sequence[str] | None = None) -> Iterator[Processes]:
    """Trains on several devices of one machine on the TensorFlow backend, with `tf.distribute.MirroredStrategy`.

    Build the model and train it inside. Batch normalization sees each device's part of a batch separately, unless
    its layers are created with `synchronized=True`. `jit_compile=True` is not possible.

    Args:
        devices: TensorFlow's device names, such as ("GPU:0", "GPU:1"). None uses all GPUs, or the CPU.

    Yields:
        The `Processes`, for `train`: one, with the number of devices.

    Raises:
        ValueError: The backend is not TensorFlow, or TF_CONFIG names a cluster of several workers.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"MirroredStrategy needs the TensorFlow backend; received {keras.backend.backend()!r}. Set "
            "KERAS_BACKEND=tensorflow; on the JAX backend `distribute.join(num_processes=1)` uses all devices."
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
