"""The `se-keras` command: what has to happen before Keras is imported.

It stands beside the package because importing anything inside the package imports Keras and
its backend, which takes seconds and prints; `--help` and usage errors should do neither.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

EXAMPLES = """examples:
  se-keras list "se_resnet*"
  se-keras list --weights --sort accuracy
  se-keras info se_resnet50
  se-keras convert SE-ResNet-50.caffemodel --model se_resnet50 --to model.keras
  se-keras predict photo.jpg --model demo_output/model.keras --labels demo_output/labels.txt
  se-keras export se_resnet50 --format tflite --dtype int8 --data photos
  se-keras verify out/model.tflite --model se_resnet50 --data photos
  se-keras benchmark out/model.tflite out/model.onnx --threads 1 2
  se-keras demo --output demo_output
"""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    main_parser = argparse.ArgumentParser(
        prog="se-keras",
        description="Squeeze-and-Excitation networks for Keras.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--verbose", action="store_true", help="show the framework's own messages and error traces")
    shared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            parents=[shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    listing = command("list", "list the networks, or their published weights", 'se-keras list "*resnext*" --weights')
    listing.add_argument("pattern", nargs="?", default="*", help="shell-style filter, e.g. 'se_resnet*'")
    listing.add_argument("--weights", action="store_true", help="list the published weights")
    listing.add_argument(
        "--sort", choices=("name", "accuracy", "parameters", "macs"), help="order of the weights (default: name)"
    )

    info = command(
        "info", "show what a network consists of, or what is known of its weights", "se-keras info se_resnet50"
    )
    info.add_argument("model", help="a network's name, a .keras file, or published weights (model.tag)")
    info.add_argument("--size", type=_at_least_one, help="height and width of the input in pixels")
    info.add_argument("--plain", action="store_true", help="the same network without SE")

    predict = command("predict", "classify image files", "se-keras predict a.jpg b.png --model model.keras --top 3")
    predict.add_argument("images", nargs="+", help="image files")
    predict.add_argument("--model", required=True, help="a .keras file, or a published checkpoint (model.tag)")
    predict.add_argument("--labels", help="text file with one class name a line; default: ImageNet's")
    predict.add_argument("--top", type=_at_least_one, default=5, help="how many classes an image (default: 5)")

    convert = command(
        "convert",
        "turn a checkpoint into a file that Keras loads",
        "se-keras convert se_resnet50.ra2_in1k --to model.keras",
    )
    convert.add_argument("checkpoint", help="published weights (model.tag), or a file")
    convert.add_argument("--to", required=True, help="file to write: .keras, .weights.h5 or .safetensors")
    convert.add_argument("--model", help="the network that a file belongs to (see `se-keras list`)")
    convert.add_argument("--overwrite", action="store_true", help="replace an existing file")

    _add_export(command)
    _add_verify(command)
    _add_benchmark(command)

    demo = command("demo", "train, save, export and compare on bundled images", "se-keras demo --output demo_output")
    demo.add_argument("--output", default="demo_output", help="folder to write to (default: demo_output)")
    demo.add_argument("--epochs", type=_at_least_one, default=15, help="passes over the images (default: 15)")
    return main_parser


Command = Callable[[str, str, str], argparse.ArgumentParser]


def _add_export(command: Command) -> None:
    export = command(
        "export",
        "write a model for servers, phones or ONNX Runtime, and verify the file",
        "se-keras export se_resnet50 --format tflite --dtype fp16 --output out/model.tflite",
    )
    export.add_argument("model", help="a network's name, published weights (model.tag), or a .keras file")
    export.add_argument("--format", choices=("saved_model", "tflite", "onnx"), required=True)
    export.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "int8", "int8_weights", "dynamic", "int16x8"),
        default="fp32",
        help="how a .tflite file computes (default: fp32); int8 and int16x8 need --data",
    )
    export.add_argument(
        "--input-type", choices=("float32", "uint8", "int8"), help="what an int8 file takes (default: float32)"
    )
    export.add_argument("--weights", choices=("imagenet", "none"), help="of a network without a tag: none are random")
    export.add_argument("--size", type=_at_least_one, help="height and width of a network's input in pixels")
    export.add_argument("--labels", help="text file with one class name a line, to put into the export")
    export.add_argument("--data", help="folder of photos, to calibrate with and to verify on")
    export.add_argument("--output", help="what to write (default: out/model.tflite, out/model.onnx, out/saved_model)")
    export.add_argument("--overwrite", action="store_true", help="replace what exists")
    _add_verdict(export)


def _add_verify(command: Command) -> None:
    verify = command(
        "verify",
        "run an exported file in its own runtime and compare it with its model; exit code 1 if it fails",
        "se-keras verify out/model.tflite --model model.keras --data photos --report out/report",
    )
    verify.add_argument("file", help="a SavedModel folder, or a .tflite, .onnx or .keras file, made here or elsewhere")
    verify.add_argument("--model", help="what it should compute: a .keras file, model.tag, or another exported file")
    verify.add_argument("--data", help="folder of photos, in subfolders by class or not")
    _add_verdict(verify)


def _add_verdict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", help="folder for report.json and report.md")
    parser.add_argument(
        "--target",
        choices=("cpu", "gpu", "edgetpu", "serving"),
        action="append",
        default=[],
        help="what has to accept the file; may be repeated",
    )
    parser.add_argument("--threads", type=_at_least_one, default=1, help="CPU threads when timing (default: 1)")
    parser.add_argument("--images", type=_at_least_one, default=256, help="photos at most (default: 256)")
    parser.add_argument("--max-relative-error", type=_fraction, help="of the logits (default: by dtype)")
    parser.add_argument("--min-top1-agreement", type=_fraction, help="share of the photos (default: by dtype)")
    parser.add_argument("--max-accuracy-drop", type=_fraction, help="as a fraction of 1 (default: by dtype)")


def _add_benchmark(command: Command) -> None:
    benchmark = command(
        "benchmark",
        "time exported files and models beside each other",
        "se-keras benchmark out/model.tflite out/model.onnx se_resnet50 --threads 1 2 --batch-sizes 1 8",
    )
    benchmark.add_argument("models", nargs="+", help="exported files and folders, .keras files, or networks' names")
    benchmark.add_argument("--threads", type=_at_least_one, nargs="+", default=[1], help="CPU threads (default: 1)")
    benchmark.add_argument("--batch-sizes", type=_at_least_one, nargs="+", default=[1], help="images (default: 1)")
    benchmark.add_argument("--repeats", type=_at_least_one, default=30, help="counted runs (default: 30)")
    benchmark.add_argument("--warmups", type=_at_least_one, default=5, help="runs before them (default: 5)")
    benchmark.add_argument("--gpu", action="store_true", help="time .tflite files in LiteRT's GPU runtime")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return value


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return int(text)


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Holds back what compiled code prints while it is being loaded; shows it if loading fails."""
    if verbose:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: Without the program's name; default: the process's own.

    Returns:
        The exit code: 0 done, 1 failed (the reason is on standard error). Usage errors exit
        with 2 before Keras is imported.
    """
    options = parser().parse_args(arguments)
    try:
        with _quiet(options.verbose):
            from se_keras import cli

            cli.wake_backend()
        return cli.COMMANDS[options.command](options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        if options.verbose:
            raise
        print(f"se-keras {options.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
