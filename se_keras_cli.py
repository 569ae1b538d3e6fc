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
from collections.abc import Iterator, Sequence

EXAMPLES = """examples:
  se-keras list "se_resnet*"
  se-keras list --weights --sort accuracy
  se-keras info se_resnet50
  se-keras convert SE-ResNet-50.caffemodel --model se_resnet50 --to model.keras
  se-keras predict photo.jpg --model demo_output/model.keras --labels demo_output/labels.txt
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

    demo = command("demo", "train, save, export and compare on bundled images", "se-keras demo --output demo_output")
    demo.add_argument("--output", default="demo_output", help="folder to write to (default: demo_output)")
    demo.add_argument("--epochs", type=_at_least_one, default=15, help="passes over the images (default: 15)")
    return main_parser


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
