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
from collections.abc import Iterator, Sequence
from typing import NoReturn

from se_keras.cli.arguments import COMMANDS, SHARED, Argument, Entry, OneOf


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
        epilog="\n  ".join(["examples:", *(command.example for command in COMMANDS.values())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main_parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        described = commands.add_parser(
            name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_arguments(described, (*SHARED, *command.arguments))
    return main_parser


def _add_arguments(parser: argparse.ArgumentParser, entries: Sequence[Entry]) -> None:
    for entry in entries:
        if isinstance(entry, Argument):
            add, arguments = parser.add_argument, [entry]
        elif isinstance(entry, OneOf):
            add, arguments = parser.add_mutually_exclusive_group(required=True).add_argument, entry.arguments
        else:
            add, arguments = parser.add_argument_group(entry.title, entry.description).add_argument, entry.arguments
        for name, settings in arguments:
            add(name, **settings)


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

        if not options.verbose and "tensorflow" not in sys.modules:
            from se_keras.cli.quiet_import import import_quietly

            import_quietly("tensorflow")
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
    """Shows a warning as one line, without its location in the code."""
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
