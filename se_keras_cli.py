"""The `se-keras` command: everything that happens before Keras is imported.

Importing Keras and its backend takes seconds and prints messages; `--help`, usage errors, and lists avoid both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

EXAMPLES = """examples:
  se-keras list "se_resnet*"
  se-keras list --weights --sort accuracy
  se-keras info se_resnet50
  se-keras convert SE-ResNet-50.caffemodel --model se_resnet50 --to model.keras
  se-keras predict photo.jpg --model demo_output/model.keras
  se-keras predict --input photos --output labels.parquet --model se_resnet50
  se-keras train --model se_resnet50 --weights imagenet --data photos --recipe finetune --out runs/photos
  se-keras train --resume runs/photos
  se-keras evaluate runs/photos/model.keras --data photos
  se-keras insert model.keras --to with_se.keras
  se-keras analyze se_resnet20.cifar10 --data sample --out figures
  se-keras export se_resnet50 --format tflite --dtype int8 --data photos
  se-keras verify out/model.tflite --model se_resnet50 --data photos
  se-keras benchmark out/model.tflite out/model.onnx --threads 1 2
  se-keras demo --output demo_output
"""


LOADING = ("info", "predict", "train", "evaluate", "insert", "analyze", "export", "verify", "benchmark")
"""The commands that load the user's own models."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors show the typed text without the terminal interpreting it."""

    def error(self, message: str) -> NoReturn:
        from se_keras.cli.console import visible

        super().error(visible(message))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    main_parser = _Parser(
        prog="se-keras",
        description="Squeeze-and-Excitation networks for Keras.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = _Parser(add_help=False)
    shared.add_argument("--verbose", action="store_true", help="show the framework's own messages and error traces")
    shared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    loading = _Parser(add_help=False)
    loading.add_argument(
        "--import",
        dest="imports",
        metavar="MODULE",
        action="append",
        default=[],
        help="Python module with your own layers that a .keras file contains; may be repeated",
    )
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}",
            parents=[shared, loading] if name in LOADING else [shared],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    listing = command("list", "list the networks, or their published weights", 'se-keras list "*resnext*" --weights')
    listing.add_argument("pattern", nargs="?", default="*", help="shell-style filter, such as 'se_resnet*'")
    listing.add_argument("--weights", action="store_true", help="list the published weights")
    listing.add_argument(
        "--sort", choices=("name", "accuracy", "parameters", "macs"), help="order of the weights (default: name)"
    )

    info = command("info", "show the structure of a network, or the record of its weights", "se-keras info se_resnet50")
    info.add_argument("model", help="a network's name, a .keras file, or published weights (model.tag)")
    info.add_argument("--size", type=_at_least_one, help="height and width of the input in pixels")
    info.add_argument("--plain", action="store_true", help="show the same network without SE")

    _add_predict(command)

    convert = command(
        "convert",
        "convert a checkpoint to a file that Keras loads",
        "se-keras convert se_resnet50.ra2_in1k --to model.keras",
    )
    convert.add_argument("checkpoint", help="published weights (model.tag), or a file")
    convert.add_argument("--to", required=True, help="file to write: .keras, .weights.h5, or .safetensors")
    convert.add_argument("--model", help="the network that a file belongs to (see `se-keras list`)")
    convert.add_argument("--overwrite", action="store_true", help="replace an existing file")

    _add_train(command)
    _add_evaluate(command)
    _add_insert(command)
    _add_analyze(command)
    _add_export(command)
    _add_verify(command)
    _add_benchmark(command)

    demo = command("demo", "classify, adapt, export, and compare on bundled images", "se-keras demo --output out")
    demo.add_argument("--output", default="demo_output", help="folder to write to (default: demo_output)")
    demo.add_argument("--epochs", type=_at_least_one, default=20, help="epochs of the adaptation (default: 20)")
    return main_parser


Command = Callable[[str, str, str], argparse.ArgumentParser]


def _add_predict(command: Command) -> None:
    predict = command(
        "predict",
        "classify image files, or all images in a folder",
        "se-keras predict a.jpg b.png --model model.keras --top 3\n"
        "  se-keras predict --input photos --output labels.parquet --model se_resnet50",
    )
    what = predict.add_mutually_exclusive_group(required=True)
    what.add_argument("images", nargs="*", default=[], help="image files")
    what.add_argument("--input", metavar="FOLDER", help="a folder with any number of images, including subfolders")
    predict.add_argument("--model", required=True, help="a .keras file, or a published checkpoint (model.tag)")
    predict.add_argument(
        "--labels",
        help="text file with one class name per line (default: labels.txt next to the model, else ImageNet's)",
    )
    predict.add_argument("--top", type=_at_least_one, default=5, help="number of classes per image (default: 5)")
    folder = predict.add_argument_group(
        "with --input",
        "Unreadable files are listed in a file next to the output.\n"
        "After any interruption, the same command continues where it stopped.",
    )
    folder.add_argument("--output", metavar="FILE", help="the table to write: .parquet or .csv")
    folder.add_argument("--batch-size", type=_at_least_one, default=32, help="images per batch (default: 32)")
    folder.add_argument("--overwrite", action="store_true", help="replace an existing output")
    folder.add_argument(
        "--engine", choices=("local", "ray"), help="this process (the default), or a Ray cluster (see RAY_ADDRESS)"
    )
    folder.add_argument("--workers", type=_at_least_one, help="most tasks on the cluster (default: one per CPU)")
    folder.add_argument("--gpus-per-worker", type=_positive, help="GPUs per task, may be a fraction (default: none)")


def _add_train(command: Command) -> None:
    train = command(
        "train",
        "train a network with a recipe, or resume a stopped run",
        "se-keras train --model se_resnet50 --weights imagenet --data photos --recipe finetune --out runs/photos\n"
        "  se-keras train --resume runs/photos",
    )
    train.add_argument("--model", help="a network's name, or a .keras file")
    train.add_argument(
        "--data",
        help="folder with one folder of images per class (or train/ and val/), folder of TFRecord files, .npz file, "
        "cifar10, cifar100, tfds/NAME (TensorFlow Datasets), or sample",
    )
    train.add_argument("--out", help="folder of the run; it must not contain another run")
    train.add_argument("--resume", metavar="FOLDER", help="resume the run in this folder, with its own settings")
    train.add_argument("--recipes", action="store_true", help="list the recipes with their sources and results")
    what = train.add_argument_group(
        "settings that determine the result", "Kept in the run's folder; --resume reads them from there."
    )
    what.add_argument("--recipe", help="name of a recipe (default: finetune, which needs --weights)")
    what.add_argument("--weights", help="initial weights: a checkpoint's tag or a file (default: random)")
    what.add_argument("--plain", action="store_true", default=None, help="train the same network without SE")
    what.add_argument("--reduction", type=_at_least_one, help="reduction of the SE blocks (default: the network's)")
    what.add_argument("--size", type=_at_least_one, help="height and width of the input in pixels")
    what.add_argument("--epochs", type=_at_least_one, help="epochs (default: the recipe's); phases keep proportions")
    what.add_argument(
        "--batch-size",
        type=_at_least_one,
        help="images per step (default: the recipe's); learning rates change in proportion",
    )
    what.add_argument("--seed", type=_natural, help="seed of weights, order, and augmentation (default: 0)")
    what.add_argument(
        "--precision",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
        help="Keras' dtype policy (default: float32)",
    )
    what.add_argument(
        "--validation-split", type=_fraction, help="fraction to hold back from a folder without val/ (default: 0.2)"
    )
    what.add_argument("--strict", action="store_true", default=None, help="fail on unreadable files")
    where = train.add_argument_group("several devices or machines", "See docs/training-on-several-machines.md.")
    where.add_argument(
        "--distribute", choices=("jax", "mirrored"), help="processes on JAX; GPUs of one machine on TensorFlow"
    )
    where.add_argument("--coordinator", metavar="HOST:PORT", help="address at which process 0 listens (jax)")
    where.add_argument("--process-id", type=_natural, metavar="I", help="number of this process, from 0 (jax)")
    where.add_argument("--num-processes", type=_at_least_one, metavar="N", help="number of processes (jax)")
    where.add_argument("--devices", nargs="+", help="devices, such as GPU:0 GPU:1 (mirrored; default: all)")
    train.add_argument("--patience", type=_at_least_one, help="stop after this many epochs without improvement")
    train.add_argument(
        "--save-every", type=_positive, default=10, help="minutes between saves within an epoch (default: 10)"
    )
    train.add_argument("--threads", type=_at_least_one, default=2, help="threads that read images (default: 2)")
    train.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard into the run's folder")


def _add_evaluate(command: Command) -> None:
    evaluate = command(
        "evaluate",
        "measure the accuracy of a model or an exported file on labeled images",
        "se-keras evaluate runs/photos/model.keras --data photos",
    )
    evaluate.add_argument("model", help="a .keras file, an exported file, or published weights (model.tag)")
    evaluate.add_argument("--data", required=True, help="as in `se-keras train`")
    evaluate.add_argument(
        "--split", choices=("validation", "train"), default="validation", help="(default: validation)"
    )
    _add_split(evaluate)
    evaluate.add_argument("--strict", action="store_true", help="fail on unreadable files")
    evaluate.add_argument("--threads", type=_at_least_one, default=2, help="CPU threads (default: 2)")
    evaluate.add_argument("--report", metavar="FOLDER", help="folder for metrics.json and confusion.png")
    evaluate.add_argument("--min-accuracy", type=_fraction, help="exit with 1 below this fraction of 1")


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--validation-split",
        type=_fraction,
        help="fraction to hold back from data without a validation part (default: from run.json next to the model, "
        "else 0.2)",
    )


def _add_insert(command: Command) -> None:
    insert = command(
        "insert",
        "insert SE blocks into a saved model, whose answers stay the same until it is trained",
        "se-keras insert model.keras --to with_se.keras",
    )
    insert.add_argument(
        "model", help="a .keras file of a functional or sequential model, or published weights (model.tag)"
    )
    insert.add_argument("--to", metavar="FILE", help="the .keras file to write")
    insert.add_argument("--where", default="auto", help="auto (the default), or a regular expression for layer names")
    insert.add_argument("--list", action="store_true", help="only list the positions of the blocks")
    insert.add_argument(
        "--reduction",
        type=_at_least_one,
        help="reduction of the blocks (default: 16; 4 suits networks with fewer than 128 channels)",
    )
    insert.add_argument(
        "--freeze-base",
        action="store_true",
        help="set all other layers to trainable=False, which training preserves",
    )
    insert.add_argument("--overwrite", action="store_true", help="replace an existing file")


def _add_analyze(command: Command) -> None:
    analyze = command(
        "analyze",
        "analyze the gates of a network on labeled images",
        "se-keras analyze se_resnet20.cifar10 --data sample --out figures",
    )
    analyze.add_argument("model", help="a .keras file, or published weights (model.tag)")
    analyze.add_argument("--data", required=True, help="as in `se-keras train`")
    analyze.add_argument("--out", required=True, help="folder for figures, their numbers as .csv, and gates.npz")
    analyze.add_argument("--split", choices=("validation", "train"), default="validation", help="(default: validation)")
    _add_split(analyze)
    analyze.add_argument("--images", type=_at_least_one, help="most images to use, evenly spaced (default: all)")
    analyze.add_argument("--prune", action="store_true", help="also measure what constant gates would save and cost")
    analyze.add_argument("--strict", action="store_true", help="fail on unreadable files")
    analyze.add_argument("--overwrite", action="store_true", help="replace existing files")


def _add_export(command: Command) -> None:
    export = command(
        "export",
        "export a model for servers, phones, or ONNX Runtime, and verify the file",
        "se-keras export se_resnet50 --format tflite --dtype fp16 --output out/model.tflite",
    )
    export.add_argument("model", help="a network's name, published weights (model.tag), or a .keras file")
    export.add_argument("--format", choices=("saved_model", "tflite", "onnx"), required=True)
    export.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "int8", "int8_weights", "dynamic", "int16x8"),
        default="fp32",
        help="number format of a .tflite file (default: fp32); int8 and int16x8 need --data",
    )
    export.add_argument(
        "--input-type", choices=("float32", "uint8", "int8"), help="input dtype of an int8 file (default: float32)"
    )
    export.add_argument(
        "--weights", choices=("imagenet", "none"), help="weights of a network given without a tag; none: random"
    )
    export.add_argument("--size", type=_at_least_one, help="height and width of a network's input in pixels")
    export.add_argument(
        "--class-names",
        help="text file with one class name per line, for the export (default: labels.txt next to the model)",
    )
    export.add_argument(
        "--data", help="folder of photos; with train and val in it, calibrates with one and verifies on the other"
    )
    export.add_argument(
        "--output", help="file or folder to write (default: out/model.tflite, out/model.onnx, out/saved_model)"
    )
    export.add_argument("--overwrite", action="store_true", help="replace an existing file or folder")
    _add_verdict(export)


def _add_verify(command: Command) -> None:
    verify = command(
        "verify",
        "run an exported file in its own runtime and compare it with its model; exit with 1 if it fails",
        "se-keras verify out/model.tflite --model model.keras --data photos --report out/report",
    )
    verify.add_argument("file", help="a SavedModel folder, or a .tflite, .onnx, or .keras file, made here or elsewhere")
    verify.add_argument("--model", help="model to compare with: a .keras file, model.tag, or another exported file")
    verify.add_argument("--data", help="folder of photos, with or without subfolders per class")
    _add_verdict(verify)


def _add_verdict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--report", help="folder for report.json and report.md")
    parser.add_argument(
        "--target",
        choices=("cpu", "gpu", "edgetpu", "serving"),
        action="append",
        default=[],
        help="target that must accept the file; may be repeated",
    )
    parser.add_argument("--threads", type=_at_least_one, default=1, help="CPU threads for timing (default: 1)")
    parser.add_argument("--images", type=_at_least_one, default=256, help="most photos to use (default: 256)")
    parser.add_argument("--strict", action="store_true", help="fail on unreadable photos")
    parser.add_argument("--max-relative-error", type=_fraction, help="limit for the logits (default: by dtype)")
    parser.add_argument("--min-top1-agreement", type=_fraction, help="fraction of the photos (default: by dtype)")
    parser.add_argument("--max-accuracy-drop", type=_fraction, help="as a fraction of 1 (default: by dtype)")


def _add_benchmark(command: Command) -> None:
    benchmark = command(
        "benchmark",
        "time exported files and models side by side",
        "se-keras benchmark out/model.tflite out/model.onnx se_resnet50 --threads 1 2 --batch-sizes 1 8",
    )
    benchmark.add_argument("models", nargs="+", help="exported files and folders, .keras files, or network names")
    benchmark.add_argument("--threads", type=_at_least_one, nargs="+", default=[1], help="CPU threads (default: 1)")
    benchmark.add_argument(
        "--batch-sizes", type=_at_least_one, nargs="+", default=[1], help="images per batch (default: 1)"
    )
    benchmark.add_argument("--repeats", type=_at_least_one, default=30, help="timed runs (default: 30)")
    benchmark.add_argument("--warmups", type=_at_least_one, default=5, help="warmup runs (default: 5)")
    benchmark.add_argument("--gpu", action="store_true", help="time .tflite files in LiteRT's GPU runtime")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1; received {text!r}")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0; received {text!r}")
    return value


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0; received {text!r}")
    return int(text)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; received {text!r}")
    return int(text)


def _held_back(verbose: bool) -> contextlib.AbstractContextManager[None]:
    """Suppresses messages that compiled code prints while it is loaded."""
    if verbose:
        return contextlib.nullcontext()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GLOG_minloglevel", "3")
    from se_keras.native_output import native_output_held

    return native_output_held()


def _open_closed_streams() -> None:
    """Opens closed standard streams (`2>&-`) on the null device; otherwise the next file would get their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  open as long as the process runs
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _flush_output() -> None:
    """Flushes standard output; a closed reader (`| head`) is not a failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        from se_keras.cli.console import mute

        mute(sys.stdout)


def _run(options: argparse.Namespace) -> int:
    with _held_back(options.verbose):
        from se_keras import cli

        command = cli.command_for(options)
        # JAX must not compute anything before the processes join.
        if "keras" in sys.modules and getattr(options, "distribute", None) is None:
            cli.wake_backend()
    for module in getattr(options, "imports", ()):
        cli.import_layers(module)
    from se_keras.cli.console import bar_on_stderr
    from se_keras.progress import shown_by

    with _warnings_as_notes(options.verbose), shown_by(bar_on_stderr):
        code = command(options)
    _flush_output()
    return code


@contextlib.contextmanager
def _warnings_as_notes(verbose: bool) -> Iterator[None]:
    """Shows a warning as one line, without its place in the code."""
    from se_keras.cli.console import progress_console

    with warnings.catch_warnings():
        if not verbose:
            warnings.filterwarnings("ignore", module="PIL")  # of damaged images, without their names
            warnings.showwarning = lambda message, *_, **__: progress_console.print(f"note: {message}")
        yield


def _failed(error: Exception, options: argparse.Namespace) -> int:
    from se_keras.cli.console import progress_console
    from se_keras.cli.failures import failure

    if options.verbose:
        traceback.print_exception(error)
    first, *others = failure(error, options).split("\n")
    progress_console.print(f"se-keras {options.command}: {first}")
    for line in others:
        progress_console.print(line)
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: The arguments without the program's name. None uses those of the process.

    Returns:
        The exit code: 0 for success, 1 for failure (the reason is on standard error), 130 for an
        interruption. Usage errors exit with 2 before Keras is imported.
    """
    _open_closed_streams()
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        return _failed(error, options)


if __name__ == "__main__":
    sys.exit(main())
