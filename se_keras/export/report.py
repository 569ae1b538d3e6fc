"""The report on an export: what was measured and expected, for the terminal, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from se_keras.export.headroom import Headroom
from se_keras.export.inspect_tflite import TARGETS, Refusal
from se_keras.export.runtime import RUNTIMES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What is expected of an export; None leaves a number unjudged.

    Args:
        relative_error: The greatest difference of a logit, as a fraction of the greatest logit.
        top1_agreement: The least share of images with the same most probable class.
        accuracy_drop: By how much the accuracy may be lower, as a fraction of 1.
        headroom: The least ratio of half precision's largest number to a squeeze's largest
            sum, where the file is meant for a GPU.
    """

    relative_error: float | None = None
    top1_agreement: float | None = None
    accuracy_drop: float | None = None
    headroom: float | None = 2.0


# Pictures beside the Markdown, and what they show; `report_figures` draws them.
FIGURES = {
    "answers": "Answers of the file beside those of the reference",
    "headroom": "Head-room of half precision at every squeeze",
    "latency": "Time of every run",
}

# By how the file computes. Errors of integer files are judged by what they do to the answer.
LIMITS = {
    "fp32": Limits(relative_error=1e-4, top1_agreement=0.99, accuracy_drop=0.002),
    "fp16": Limits(relative_error=1e-2, top1_agreement=0.99, accuracy_drop=0.002),
    "int8": Limits(top1_agreement=0.98, accuracy_drop=0.005),
    "int8_weights": Limits(top1_agreement=0.98, accuracy_drop=0.005),
    "dynamic": Limits(top1_agreement=0.98, accuracy_drop=0.005),
    "int16x8": Limits(top1_agreement=0.98, accuracy_drop=0.005),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """A file's answers beside the reference's, on the same images.

    Args:
        images: "random" or "real".
        count: How many images.
        runtime: A key of `RUNTIMES`: where the file ran.
        quantity: "logits" (also recovered from probabilities, up to their common shift),
            "probabilities" or "outputs".
        max_error: The greatest difference.
        mean_error: The mean difference.
        relative_error: The greatest difference over the greatest value of the reference.
        top1_agreement: Share of images with the same most probable class, or None where the
            output is no vector of classes.
        top5_agreement: Mean share of the five most probable classes in common, or None.
        reference_accuracy: Share of images that the reference classifies rightly, if labelled.
        accuracy: Share of images that the file classifies rightly, if labelled.
        answers: What was compared, the reference's and the file's, each of shape (n, classes);
            for figures, not for JSON.
    """

    images: str
    count: int
    runtime: str
    quantity: str
    max_error: float
    mean_error: float
    relative_error: float
    top1_agreement: float | None = None
    top5_agreement: float | None = None
    reference_accuracy: float | None = None
    accuracy: float | None = None
    answers: tuple[np.ndarray, np.ndarray] | None = dataclasses.field(default=None, repr=False, compare=False)

    def failures(self, limits: Limits, *, judge_classes: bool) -> Iterator[str]:
        """What is beyond the limits.

        Args:
            limits: What is expected.
            judge_classes: Whether the images say something about classes.

        Yields:
            A sentence each.
        """
        where = f"{RUNTIMES[self.runtime]}, {self.count} {self.images} images"
        if not math.isfinite(self.max_error):
            yield f"{where}: the file answers with numbers that are not finite."
            return
        if limits.relative_error is not None and self.relative_error > limits.relative_error:
            yield (
                f"{where}: the {self.quantity} differ by {self.relative_error:.2g} of the greatest; allowed is "
                f"{limits.relative_error:.2g}."
            )
        if not judge_classes:
            return
        least = limits.top1_agreement
        if self.top1_agreement is not None and least is not None and self.top1_agreement < least:
            yield f"{where}: {self.top1_agreement:.1%} have the same top class; at least {least:.1%} should."
        drop = self.accuracy_drop
        if drop is not None and limits.accuracy_drop is not None and drop > limits.accuracy_drop:
            most = 100 * limits.accuracy_drop
            yield f"{where}: the accuracy is {100 * drop:.2f} points lower; allowed is {most:.2f}."

    @property
    def accuracy_drop(self) -> float | None:
        """By how much the file's accuracy is lower, as a fraction of 1; None without labels."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.reference_accuracy - self.accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """How long a call takes, measured in a fresh process after a warm-up.

    Args:
        runtime: A key of `RUNTIMES`.
        threads: CPU threads.
        batch: Images a call.
        runs: How many were counted.
        median: Seconds.
        least: Seconds.
        quartiles: Seconds that a quarter and three quarters of the runs stay below.
        peak_memory: Bytes that opening and running the file added to what its idle runtime holds.
        seconds: What each run took, in their order.
    """

    runtime: str
    threads: int
    batch: int
    runs: int
    median: float
    least: float
    quartiles: tuple[float, float]
    peak_memory: int
    seconds: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of an exported file.

    Args:
        path: The file or folder.
        format: "saved_model", "tflite", "onnx" or "keras".
        dtype: How it computes.
        size: Bytes.
        reference: What it was compared with, or None.
        inputs: Each as text: name, shape and dtype.
        outputs: As `inputs`.
        operations: How often each operation occurs.
        opset: An ONNX file's operation set, else None.
        agreements: The comparisons with the reference.
        refusals: What a target would refuse.
        headrooms: The head-room of half precision at every squeeze.
        speeds: Time and memory.
        gpu: "resident" if a GPU runs every operation of a `.tflite` file, "" if none was asked,
            else its reason for refusing.
        targets: The targets that have to accept the file.
        limits: What was expected.
        problems: What went wrong on the way; each fails the report.
        notes: What the reader should know.
    """

    path: str
    format: str
    dtype: str
    size: int
    reference: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    operations: dict[str, int] = dataclasses.field(default_factory=dict)
    opset: int | None = None
    agreements: tuple[Agreement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    headrooms: tuple[Headroom, ...] = ()
    speeds: tuple[Speed, ...] = ()
    gpu: str = ""
    targets: tuple[str, ...] = ()
    limits: Limits = LIMITS["fp32"]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return pathlib.Path(self.path).name

    @property
    def passed(self) -> bool:
        """Whether everything is within the limits."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """What is not within the limits, a sentence each."""
        return (*self.problems, *self._disagreements(), *self._refused(), *self._overflows())

    def _disagreements(self) -> Iterator[str]:
        real = any(agreement.images == "real" for agreement in self.agreements)
        for agreement in self.agreements:
            on_gpu = agreement.runtime == "tflite_gpu"
            if on_gpu and self.limits.relative_error is None and "gpu" not in self.targets:
                continue  # a file of integers is rarely meant for one
            # Noise has no class: where the limits allow no error of the logits, they say all that it can say.
            classes = agreement.images == "real" if real else self.limits.relative_error is not None
            yield from agreement.failures(self.limits_of(agreement), judge_classes=classes)

    def limits_of(self, agreement: Agreement) -> Limits:
        """What is expected of one comparison: a GPU computes in half precision, whatever the file."""
        if agreement.runtime != "tflite_gpu" or self.limits.relative_error is None:
            return self.limits
        half = LIMITS["fp16"].relative_error or 0.0
        return dataclasses.replace(self.limits, relative_error=max(self.limits.relative_error, half))

    def _refused(self) -> Iterator[str]:
        for refusal in self.refusals:
            if refusal.target in self.targets:
                yield f"{TARGETS[refusal.target]}: {refusal.subject} ({refusal.count} times) {refusal.reason}."
        if "gpu" in self.targets and self.gpu not in ("", "resident"):
            yield f"The GPU does not run the file: {self.gpu}"

    def _overflows(self) -> Iterator[str]:
        least = self.limits.headroom
        if "gpu" not in self.targets or least is None:
            return
        for entry in self.headrooms:
            if entry.ratio < least:
                yield (
                    f"{short_name(entry.name)}: its sum reaches {entry.largest_sum:,.0f} in half precision, which ends "
                    f"at 65,504; expected is {least:g} times less. Export with squeeze='staged'."
                )

    def to_dict(self) -> dict[str, Any]:
        """The report as dictionaries, lists, numbers and text, for JSON."""
        content = dataclasses.asdict(dataclasses.replace(self, agreements=()))
        content["agreements"] = [
            {key: value for key, value in vars(entry).items() if key != "answers"} for entry in self.agreements
        ]
        content["headrooms"] = [
            {**dataclasses.asdict(entry), "ratio": entry.ratio if math.isfinite(entry.ratio) else None}
            for entry in self.headrooms
        ]
        return {**content, "passed": self.passed, "failures": list(self.failures)}

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(_finite(self.to_dict()), indent=2)

    def to_markdown(self, figures: Sequence[str] = ()) -> str:
        """The report as Markdown.

        Args:
            figures: Names of pictures beside it to show, of `FIGURES`.

        Returns:
            The text.
        """
        parts = [f"# {self.name}: {'passed' if self.passed else 'FAILED'}"]
        for title, header, rows in self._tables():
            lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
            parts.append("\n".join([f"## {title}", "", *lines]))
        parts += [f"- {line}" for line in (*self.failures, *self.notes)]
        parts += [f"![{FIGURES[name]}]({name}.png)" for name in figures]
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        parts = [
            "\n".join([title, *(f"  {line}" for line in _aligned([header, *rows]))])
            for title, header, rows in self._tables()
        ]
        closing = [f"FAILED: {failure}" for failure in self.failures] or ["passed"]
        return "\n\n".join([*parts, "\n".join([*(f"note: {note}" for note in self.notes), *closing])])

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        opset = f", opset {self.opset}" if self.opset else ""
        counts = ", ".join(f"{count} {name}" for name, count in self.operations.items())
        rows = [
            ["format", f"{self.format}, {self.dtype}{opset}, {self.size / 1e6:.2f} MB"],
            ["input", "; ".join(self.inputs)],
            ["output", "; ".join(self.outputs)],
            ["operations", counts],
            ["on a GPU", self.gpu.split("\n")[0]],
            ["compared with", self.reference or "nothing"],
        ]
        yield self.path, ["what", "found"], [row for row in rows if row[1]]
        if self.agreements:
            yield "Same answers?", list(_AGREEMENT), [_agreement_row(entry) for entry in self.agreements]
        if self.speeds:
            header = ["runtime", "threads", "median", "least", "middle half", "memory"]
            yield "One image", header, [_speed_row(speed) for speed in self.speeds]
        if self.headrooms:
            yield from self._headroom_table()
        if self.refusals:
            rows = [[e.target, e.subject, str(e.count), e.reason] for e in _merged(self.refusals)]
            yield "What targets would refuse", ["target", "what", "times", "why"], rows

    def _headroom_table(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        least = sorted(self.headrooms, key=lambda entry: entry.ratio)[:3]
        rows = [[short_name(e.name), str(e.positions), f"{e.largest_sum:,.0f}", f"{e.ratio:,.1f}"] for e in least]
        title = f"Half precision at {len(self.headrooms)} means, the tightest (65,504 is the end)"
        yield title, ["mean", "positions", "largest sum", "times to spare"], rows


_AGREEMENT = ("images", "runtime", "of", "max. error", "mean", "relative", "top-1", "top-5", "accuracy", "reference")


def _agreement_row(entry: Agreement) -> list[str]:
    shares = (entry.top1_agreement, entry.top5_agreement, entry.accuracy, entry.reference_accuracy)
    errors = (entry.max_error, entry.mean_error, entry.relative_error)
    return [
        f"{entry.count} {entry.images}",
        RUNTIMES[entry.runtime],
        entry.quantity,
        *(f"{error:.1e}" for error in errors),
        *("-" if share is None else f"{share:.1%}" for share in shares),
    ]


def _speed_row(speed: Speed) -> list[str]:
    quarter, three = (f"{1e3 * second:.2f}" for second in speed.quartiles)
    return [
        RUNTIMES[speed.runtime],
        str(speed.threads),
        f"{1e3 * speed.median:.2f} ms",
        f"{1e3 * speed.least:.2f} ms",
        f"{quarter}-{three} ms",
        f"{speed.peak_memory / 1e6:.0f} MB",
    ]


def _merged(refusals: Sequence[Refusal]) -> list[Refusal]:
    """One entry for all operations that a target refuses for the same reason."""
    merged: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        merged.setdefault((refusal.target, refusal.reason), []).append(refusal)
    return [
        Refusal(target, ", ".join(entry.subject for entry in entries), reason, sum(entry.count for entry in entries))
        for (target, reason), entries in merged.items()
    ]


def short_name(name: str) -> str:
    """The last two parts of a tensor's first name; converters join the paths of all operations they fused."""
    return "/".join(name.split(";")[0].split("/")[-2:])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _finite(value: Any) -> Any:
    """JSON knows no infinity and no NaN."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
