"""SE-ResNet-50 on a GPU, on JAX in bfloat16: the cost of SE in inference, and images per second in training.

    python benchmarks/gpu.py --minutes 6 --peers python3    # compared with timm's compiled networks in that Python
    python benchmarks/gpu.py --allow-cpu                    # a trial of the script itself, on small images

One process per framework holds all its contestants; they take turns, one measurement at a time. The results are written
after every round, so that a run that is cut leaves those of the rounds before. What counts most comes first; another
run on the same GPU with the same packages adds what is missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from contestant import installed
from timing import RESULTS, summary, where

HERE = pathlib.Path(__file__).parent
WORKER = HERE / "gpu_worker.py"
JAX, TIMM = "jax", "timm"
FORMS = {
    "JAX": (JAX, "built"),
    "JAX, deployed": (JAX, "deployed"),
    "JAX, deployed, weights as constants": (JAX, "frozen"),
    "JAX, deployed, weights as constants, dense": (JAX, "dense"),
    "JAX, dense": (JAX, "dense"),
    "timm, compiled": (TIMM, "compiled"),
    "timm, compiled, CUDA graphs": (TIMM, "graphs"),
}
OURS, PEER = "JAX", "timm, compiled"
MAIN = (OURS, PEER, "JAX, deployed, weights as constants", "JAX, deployed, weights as constants, dense")
FURTHER = ("JAX, deployed", "timm, compiled, CUDA graphs")
WITH, WITHOUT = "SE-ResNet-50", "ResNet-50"
NETWORKS = {WITHOUT: "plain", WITH: "se"}
OVERHEAD_LIMIT = 1.05
MEASUREMENT = 0.1  # seconds of calls in a row, at least one call
FEWEST_ROUNDS = 3
PROFILED_CALLS = 5
DEVICE = (
    "import json, jax; d = jax.devices()[0]; print(json.dumps([d.platform, d.device_kind, jax.__version__]))",
    "import json, torch, timm; c = torch.cuda.is_available(); "
    "print(json.dumps([torch.cuda.get_device_name() if c else 'cpu', torch.__version__, timm.__version__]))",
)


@dataclasses.dataclass(frozen=True)
class Section:
    """Contestants that are measured together.

    Args:
        kind: "inference" or "training".
        batch: Batch size.
        forms: Keys of `FORMS`.
        networks: Keys of `NETWORKS`.
        further: Whether the section is an addition to another with the same kind and batch size.
    """

    kind: str
    batch: int
    forms: tuple[str, ...]
    networks: tuple[str, ...] = (WITHOUT, WITH)
    further: bool = False

    @property
    def title(self) -> str:
        return f"{self.kind}, batch {self.batch}{', further forms' if self.further else ''} (s)"


def sections_of(inference: tuple[int, ...], training: tuple[int, ...]) -> list[Section]:
    """Returns the sections, those that count most first."""
    return [
        *(Section("training", batch, (OURS, PEER, "JAX, dense"), (WITH,)) for batch in training),
        *(Section("inference", batch, MAIN) for batch in inference),
        *(Section("inference", batch, FURTHER, further=True) for batch in inference),
    ]


class Worker:
    """A process of gpu_worker.py.

    Args:
        python: The interpreter.
        framework: "jax" or "timm".
    """

    def __init__(self, python: str, framework: str) -> None:
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, WORKER, framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
        )

    def __call__(self, do: str, task: dict[str, Any], **further: Any) -> Any:
        """Returns the answer to a request; raises RuntimeError with what went wrong."""
        try:
            self.process.stdin.write(json.dumps({"do": do, "task": task, **further}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:  # a broken pipe
            line = ""
        if not line:
            self.complaints.seek(0)
            raise RuntimeError(f"its process ended: {' '.join(self.complaints.read().split()[-40:])}")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.complaints.close()


Contestant = tuple[str, str]  # a form and a network, keys of FORMS and NETWORKS


class Race:
    """The contestants of one section.

    Args:
        section: The section.
        size: Height and width of the images in pixels.
        workers: The processes by framework; contestants of others are left out.
        deadline: Time at which to stop preparing contestants, on the clock of `time.monotonic`.
    """

    def __init__(self, section: Section, size: int, workers: Mapping[str, Worker], deadline: float) -> None:
        self.workers = workers
        self.deadline = deadline
        self.tasks = {
            (form, network): {
                "kind": section.kind,
                "form": FORMS[form][1],
                "network": NETWORKS[network],
                "batch": section.batch,
                "size": size,
            }
            for form in section.forms
            for network in section.networks
            if FORMS[form][0] in workers
        }
        self.prepared: set[Contestant] = set()
        self.compiling: dict[str, float] = {}

    def ask(self, do: str, contestant: Contestant, **further: Any) -> Any:
        """Returns the answer of a contestant; None, and the reason is printed, if it cannot."""
        try:
            return self.workers[FORMS[contestant[0]][0]](do, self.tasks[contestant], **further)
        except RuntimeError as error:
            print(f"  left out: {': '.join(contestant)} ({error})", flush=True)
            self.prepared.discard(contestant)
            return None

    def _prepare(self, framework: str) -> None:
        for contestant in self.tasks:
            if FORMS[contestant[0]][0] == framework and time.monotonic() < self.deadline:
                taken = self.ask("prepare", contestant)
                if taken is not None:
                    self.compiling[": ".join(contestant)] = taken
                    self.prepared.add(contestant)

    def run(self, rounds: int) -> Any:
        """Yields, after every round, the seconds of each contestant in all rounds so far."""
        threads = [threading.Thread(target=self._prepare, args=(framework,), daemon=True) for framework in self.workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warm = {contestant: self.ask("warm", contestant) for contestant in self.tasks if contestant in self.prepared}
        calls = {contestant: max(1, round(MEASUREMENT / taken)) for contestant, taken in warm.items() if taken}
        seconds: dict[Contestant, list[float]] = {contestant: [] for contestant in calls}
        for number in range(rounds if calls else 0):
            if number >= FEWEST_ROUNDS and time.monotonic() > self.deadline:
                break
            for contestant in list(seconds):
                taken = self.ask("time", contestant, calls=calls[contestant])
                if taken is None:
                    del seconds[contestant]
                else:
                    seconds[contestant].append(taken)
            yield seconds

    def profiles(self) -> dict[str, dict[str, float]]:
        """Returns the microseconds of a call by kernel, of those on JAX."""
        found = {}
        for contestant in self.tasks:
            if FORMS[contestant[0]][0] == JAX and contestant in self.prepared and time.monotonic() < self.deadline:
                kernels = self.ask("profile", contestant, calls=PROFILED_CALLS)
                if kernels:
                    found[": ".join(contestant)] = kernels
        return found


def rows_of(section: Section, seconds: Mapping[Contestant, list[float]]) -> dict[str, dict[str, float]]:
    """Returns medians and ratios: to the network without SE in inference, to ours in training."""
    rows: dict[str, dict[str, float]] = {}
    if section.kind == "training":
        of_forms = {form: taken for (form, _), taken in seconds.items()}
        found = summary(of_forms, reference=next(iter(of_forms)))
        return {
            f"{form}: {WITH}": {**row, "images_per_s": section.batch / row["median_s"]} for form, row in found.items()
        }
    for form in section.forms:
        pair = {network: seconds[form, network] for network in NETWORKS if (form, network) in seconds}
        if len(pair) == len(NETWORKS):
            rows |= {f"{form}: {name}": row for name, row in summary(pair, reference=WITHOUT).items()}
    return rows


def goals(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns the measured ratios that have goals, with their limits."""
    found = {}
    for title, rows in sections.items():
        if title.startswith("inference"):
            for form, (framework, _) in FORMS.items():
                row = rows.get(f"{form}: {WITH}")
                if row:
                    limit = {"limit": OVERHEAD_LIMIT} if framework == JAX else {}
                    found[f"{title}, {form}: with SE over without"] = {"value": row["ratio"], **limit}
        elif f"{OURS}: {WITH}" in rows and f"{PEER}: {WITH}" in rows:
            ours, peer = rows[f"{OURS}: {WITH}"]["median_s"], rows[f"{PEER}: {WITH}"]["median_s"]
            found[f"{title}: our step over timm's"] = {"value": ours / peer, "limit": 1.0}
    return found


def show(record: dict[str, Any]) -> int:
    """Prints the results; returns 1 if a goal is missed."""
    for title, rows in record["sections"].items():
        print(title)
        for name, row in rows.items():
            print(f"  {name:<68}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    missed = False
    for label, goal in record["goals"].items():
        over = goal["value"] > goal.get("limit", math.inf)
        missed = missed or over
        limit = f", limit {goal['limit']}" if "limit" in goal else ""
        print(f"{'over' if over else 'ok' if limit else '':<5}{label}: {goal['value']:.3f}{limit}")
    return int(missed)


def _said(python: str, code: str) -> list[str]:
    """Returns the output of code in a process that releases the GPU's memory when it ends."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{python} cannot take part: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _peers_that_start(python: str | None) -> str | None:
    """Returns the peers' Python if it has the required packages; else prints the reason and returns None."""
    lacking = sorted({"torch", "timm"} - installed(python, ("torch", "timm")).keys()) if python else []
    if lacking:
        print(f"  left out: the peers of {python} (it lacks {' and '.join(lacking)})", flush=True)
    return None if lacking else python


def _setting(peers: str | None) -> dict[str, Any]:
    """Returns the GPU and the packages, which must match for results to share a file, and whether there is a GPU."""
    platform, device, jax_version = _said(sys.executable, DEVICE[0])
    packages = {"jax": jax_version}
    if peers:
        of_peer, packages["torch"], packages["timm"] = _said(peers, DEVICE[1])
        if platform != "cpu" and of_peer == "cpu":
            raise RuntimeError(f"PyTorch in {peers} found no GPU; install a GPU build, or omit --peers.")
    return {**where(("keras", "numpy"), packages), "device": device, "size": 32 if platform == "cpu" else 224}


def _earlier(path: pathlib.Path, setting: dict[str, Any]) -> dict[str, Any]:
    """Returns an earlier record in the same setting, or an empty one."""
    if path.exists():
        then = json.loads(path.read_text("utf-8"))
        if all(then.get(key) == setting[key] for key in ("device", "packages", "size")):
            return then
    return {**setting, "goals": {}, "sections": {}, "compilation_s": {}, "kernels_us": {}}


def measure(
    record: dict[str, Any],
    sections: list[Section],
    workers: Mapping[str, Worker],
    *,
    rounds: int,
    deadline: float,
    path: pathlib.Path,
) -> None:
    """Adds the missing sections to the record, and writes it after every round."""
    for section in sections:
        if section.title in record["sections"]:
            continue
        if time.monotonic() > deadline:
            print(f"  left out: {section.title} (the time is over)", flush=True)
            continue
        print(section.title, flush=True)
        race = Race(section, record["size"], workers, deadline)
        for seconds in race.run(rounds):
            record["sections"][section.title] = rows_of(section, seconds)
            record["compilation_s"][section.title] = race.compiling
            record["goals"] = goals(record["sections"])
            _write(path, record)
        if section.kind == "inference" and not section.further:
            record["kernels_us"][section.title] = race.profiles()
            _write(path, record)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="Python of an environment with PyTorch and timm")
    parser.add_argument("--minutes", type=float, default=math.inf, help="minutes after which nothing new is begun")
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each contestant")
    parser.add_argument("--out", type=pathlib.Path, help="file for the results; default: benchmarks/results/gpu.json")
    parser.add_argument("--allow-cpu", action="store_true", help="small images, to try the script without a GPU")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    peers = _peers_that_start(options.peers)
    setting = _setting(peers)
    on_gpu = setting["size"] == 224
    if not on_gpu and not options.allow_cpu:
        print("JAX found no GPU; nothing was measured. Use `--allow-cpu` to try the script on small images.")
        return 0
    sections = sections_of((1, 64), (128,)) if on_gpu else sections_of((1,), (2,))
    path = options.out or (RESULTS / "gpu.json" if on_gpu else pathlib.Path(tempfile.mkdtemp()) / "gpu.json")
    record = _earlier(path, setting)
    workers = {JAX: Worker(sys.executable, JAX)} | ({TIMM: Worker(peers, TIMM)} if peers else {})
    try:
        measure(record, sections, workers, rounds=options.rounds, deadline=deadline, path=path)
    finally:
        for worker in workers.values():
            worker.close()
    code = show(record)
    print(f"written: {path}")
    return code


def _write(path: pathlib.Path, record: dict[str, Any]) -> None:
    from se_keras.files import replacing

    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.exit(main())
