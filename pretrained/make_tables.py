"""Writes the table of published checkpoints into pretrained/README.md, and results-imagenet.csv beside it.

python pretrained/make_tables.py            # --check only says whether both are current
"""

from __future__ import annotations

import csv
import io
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = pathlib.Path(__file__).parent
BEGIN, END = "<!-- checkpoints:begin -->", "<!-- checkpoints:end -->"


def _of_imagenet() -> list[str]:
    from se_keras.weights.published import RECORDS

    return sorted(name for name, record in RECORDS.items() if record.dataset == "ImageNet-1k")


def table() -> str:
    """One row a checkpoint, in Markdown."""
    from se_keras.weights.published import DEFAULT_TAGS, RECORDS

    lines = [
        "| Checkpoint | top-1 | top-5 | Size | Parameters | GMACs | From |",
        "| --- | --: | --: | --: | --: | --: | --- |",
    ]
    for name in _of_imagenet():
        record = RECORDS[name]
        accuracy = record.accuracy[0]
        default = " *(default)*" if DEFAULT_TAGS.get(record.model) == record.tag else ""
        lines.append(
            f"| `{name}`{default} | {accuracy.top1:.2f} | {accuracy.top5:.2f} | {accuracy.size} "
            f"| {record.parameters / 1e6:.1f} M | {record.macs / 1e9:.2f} | {record.provenance} |"
        )
    return "\n".join(lines)


def results() -> str:
    """One row a measured accuracy, as CSV."""
    from se_keras.weights.published import RECORDS

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["checkpoint", "top1", "top5", "size", "crop", "interpolation", "parameters", "measured_by"])
    for name in _of_imagenet():
        record = RECORDS[name]
        for row in record.accuracy:
            how = record.preprocessing.interpolation
            writer.writerow([name, row.top1, row.top5, row.size, row.crop, how, record.parameters, row.measured_by])
    return stream.getvalue()


def files() -> dict[pathlib.Path, str]:
    """What each of the two files should hold."""
    readme = HERE / "README.md"
    text = readme.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return {
        readme: f"{before}{BEGIN}\n{table()}\n{END}{after}",
        HERE / "results-imagenet.csv": results(),
    }


def main() -> int:
    stale = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is out of date: python pretrained/make_tables.py")
        return int(bool(stale))
    for path, text in files().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
