"""Report on an export: measurements and limits, for the terminal, as JSON, and as Markdown."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from se_keras.export.agreement import LIMITS, Agreement, Limits
from se_keras.export.headroom import Headroom
from se_keras.export.inspect_tflite import TARGETS, Refusal
from se_keras.export.layer_loss import LayerLoss
from se_keras.export.runtime import RUNTIMES
from se_keras.export.speed import Speed

# Figures next to the Markdown file, with their titles; `report_figures` draws them.
FIGURES = {
    "answers": "Outputs of the file and of the reference",
    "headroom": "Half-precision headroom of every squeeze",
    "losses": "Signal-to-noise ratio of every operation",
    "latency": "Time of every run",
}
SHOWN_LOSSES = 20  # in tables; JSON and the figure have all
NAMED = 4  # of the tensors in float, in tables; JSON has all
LONGEST_NAME = 30  # keeps the table of losses within 80 columns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """A report on an exported file.

    Args:
        path: The file or folder.
        format: "saved_model", "tflite", "onnx", "openvino", or "keras".
        dtype: Precision of the file.
        size: Size in bytes.
        reference: The model that it was compared with, or None.
        inputs: Name, shape, and dtype of each input as text.
        outputs: The same for each output.
        operations: Number of occurrences of each operation.
        in_float: Tensors that an integer `.tflite` file computes in float.
        opset: The opset of an ONNX file, else None.
        agreements: Comparisons with the reference.
        refusals: Parts that a target does not run.
        headrooms: Half-precision headroom of every squeeze.
        losses: Loss of each operation of an integer file, the largest first.
        speeds: Time and memory.
        gpu: "resident" if a GPU runs every operation of a `.tflite` file, "" if no GPU was
            tried, else the GPU's reason for refusing the file.
        targets: Targets that must accept the file.
        limits: The limits.
        problems: Problems during verification; each one fails the report.
        notes: Notes for the reader.
    """

    path: str
    format: str
    dtype: str
    size: int
    reference: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    operations: dict[str, int] = dataclasses.field(default_factory=dict)
    in_float: tuple[str, ...] = ()
    opset: int | None = None
    agreements: tuple[Agreement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    headrooms: tuple[Headroom, ...] = ()
    losses: tuple[LayerLoss, ...] = ()
    speeds: tuple[Speed, ...] = ()
    gpu: str = ""
    targets: tuple[str, ...] = ()
    limits: Limits = LIMITS["fp32"]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Returns the file's name without its folders."""
        return pathlib.Path(self.path).name

    @property
    def passed(self) -> bool:
        """Returns whether everything is within the limits."""
        return not self.failures

    @property
    def failures(self) -> tuple[str, ...]:
        """Returns the violations of the limits, one sentence each."""
        return (*self.problems, *self._disagreements(), *self._refused(), *self._overflows())

    def _disagreements(self) -> Iterator[str]:
        real = any(agreement.images == "real" for agreement in self.agreements)
        for agreement in self.agreements:
            on_gpu = agreement.runtime == "tflite_gpu"
            if on_gpu and self.limits.relative_error is None and "gpu" not in self.targets:
                continue  # an integer file is rarely meant for a GPU
            # Noise has no class: without real images, classes are judged only where the logits have a limit.
            classes = agreement.images == "real" if real else self.limits.relative_error is not None
            yield from agreement.failures(self.limits_of(agreement), judge_classes=classes)

    def limits_of(self, agreement: Agreement) -> Limits:
        """Returns the limits of one comparison: a GPU computes in half precision, regardless of the file."""
        if agreement.runtime != "tflite_gpu" or self.limits.relative_error is None:
            return self.limits
        half = LIMITS["fp16"].relative_error or 0.0
        return dataclasses.replace(self.limits, relative_error=max(self.limits.relative_error, half))

    def _refused(self) -> Iterator[str]:
        for refusal in self.refusals:
            if refusal.target in self.targets:
                yield f"{TARGETS[refusal.target]}: {refusal.subject} ({refusal.count} times) {refusal.reason}."
        if "gpu" in self.targets and self.gpu not in ("", "resident"):
            yield f"The GPU cannot run the file: {self.gpu}"

    def _overflows(self) -> Iterator[str]:
        least = self.limits.headroom
        if "gpu" not in self.targets or least is None:
            return
        for entry in self.headrooms:
            if entry.ratio < least:
                yield (
                    f"{short_name(entry.name)}: {least:g} times its sum must stay below 65,504, the largest "
                    f"half-precision number; the sum reaches {entry.largest_sum:,.0f}. Export with squeeze='staged'."
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as dictionaries, lists, numbers, and text, for JSON."""
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
        """Returns the report as JSON."""
        return json.dumps(_finite(self.to_dict()), indent=2)

    def to_markdown(self, figures: Sequence[str] = ()) -> str:
        """Returns the report as Markdown.

        Args:
            figures: Names in `FIGURES` of figures in the same folder to include.

        Returns:
            The text.
        """
        parts = [f"# {self.name}: {'passed' if self.passed else 'FAILED'}"]
        for title, header, rows in self._tables():
            lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
            parts.append("\n".join([f"## {title}", "", *lines]))
        parts += [f"- {line}" for line in (*self.failures, *self._advice(), *self.notes)]
        parts += [f"![{FIGURES[name]}]({name}.png)" for name in figures]
        return "\n\n".join(parts) + "\n"

    def __str__(self) -> str:
        parts = [
            "\n".join([title, *(f"  {line}" for line in _aligned([header, *rows]))])
            for title, header, rows in self._tables()
        ]
        closing = [*(f"FAILED: {failure}" for failure in self.failures), *self._advice()] or ["passed"]
        return "\n\n".join([*parts, "\n".join([*(f"note: {note}" for note in self.notes), *closing])])

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        opset = f", opset {self.opset}" if self.opset else ""
        counts = ", ".join(f"{count} {name}" for name, count in self.operations.items())
        rows = [
            ["format", f"{self.format}, {self.dtype}{opset}, {self.size / 1e6:.2f} MB"],
            ["input", "; ".join(self.inputs)],
            ["output", "; ".join(self.outputs)],
            ["operations", counts],
            ["in float", self._kept()],
            ["on a GPU", self.gpu.split("\n")[0]],
            ["compared with", self.reference or "nothing"],
        ]
        yield self.path, ["property", "value"], [row for row in rows if row[1]]
        if self.agreements:
            rows = [_agreement_row(entry) for entry in self.agreements]
            shown = [index for index, column in enumerate(zip(*rows, strict=True)) if {*column} != {"-"}]
            table = [[row[index] for index in shown] for row in (_AGREEMENT, *rows)]
            yield "Agreement with the reference", table[0], table[1:]
        if self.speeds:
            header = ["runtime", "threads", "median", "least", "middle half", "memory"]
            unit = self.agreements[0].unit if self.agreements else "images"
            yield f"One {unit.removesuffix('s')}", header, [_speed_row(speed) for speed in self.speeds]
        if self.headrooms:
            yield from self._headroom_table()
        if self.losses:
            yield self._loss_table()
        if self.refusals:
            rows = [[e.target, e.subject, str(e.count), e.reason] for e in _merged(self.refusals)]
            yield "Refused by targets", ["target", "operation", "count", "reason"], rows

    def _advice(self) -> Iterator[str]:
        """Yields what to do where an 8-bit file fails."""
        if self.dtype == "int8" and self.failures:
            others = "keep_float='auto' (--keep-float auto), 'int8_weights', or " if self.format == "tflite" else ""
            where = "; layers=True (--layers) shows where the error arises" if self.format == "tflite" else ""
            yield f"Verify on more images, or export with {others}'fp16'{where}."

    def _kept(self) -> str:
        if not self.in_float:
            return ""
        names = ", ".join(short_name(name) for name in self.in_float[:NAMED])
        more = f", and {len(self.in_float) - NAMED} more" if len(self.in_float) > NAMED else ""
        return f"{len(self.in_float)} of {sum(self.operations.values())} operations: {names}{more}"

    def _headroom_table(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        least = sorted(self.headrooms, key=lambda entry: entry.ratio)[:3]
        rows = [[short_name(e.name), str(e.positions), f"{e.largest_sum:,.0f}", f"{e.ratio:,.1f}"] for e in least]
        title = f"Half precision at {len(self.headrooms)} means, the tightest three (the limit is 65,504)"
        yield title, ["mean", "positions", "largest sum", "headroom"], rows

    def _loss_table(self) -> tuple[str, list[str], list[list[str]]]:
        worst = self.losses[:SHOWN_LOSSES]
        rows = [[_end_of(short_name(e.name)), e.operation, f"{e.alone:.1f}", f"{e.within:.1f}"] for e in worst]
        title = f"Signal to noise in dB, the worst {len(worst)} of {len(self.losses)} operations"
        return title, ["output", "operation", "alone", "within the network"], rows


_AGREEMENT = (
    "images",
    "runtime",
    "of",
    "max. error",
    "mean",
    "relative",
    "squared",
    "top-1",
    "top-5",
    "accuracy",
    "reference",
)


def _agreement_row(entry: Agreement) -> list[str]:
    shares = (entry.top1_agreement, entry.top5_agreement, entry.accuracy, entry.reference_accuracy)
    errors = (entry.max_error, entry.mean_error, entry.relative_error, entry.squared_error)
    return [
        f"{entry.count} {entry.images}{f', {entry.output}' if entry.output else ''}",
        RUNTIMES[entry.runtime],
        entry.quantity,
        *("-" if error is None else f"{error:.1e}" for error in errors),
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
    """Merges the operations that a target refuses for the same reason into one entry."""
    merged: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        merged.setdefault((refusal.target, refusal.reason), []).append(refusal)
    return [
        Refusal(target, ", ".join(entry.subject for entry in entries), reason, sum(entry.count for entry in entries))
        for (target, reason), entries in merged.items()
    ]


def short_name(name: str) -> str:
    """Returns the last two parts of a tensor's first name; converters join the paths of all fused operations."""
    return "/".join(name.split(";")[0].split("/")[-2:])


def _end_of(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _finite(value: Any) -> Any:
    """Replaces infinity and NaN, which JSON does not have, with None."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
