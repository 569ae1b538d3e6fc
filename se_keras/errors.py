"""Error messages that several parts of the package share, and exceptions that a caller may want to catch."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Iterable, Mapping, Sequence

_MOST_LISTED = 30
"""Options that an error lists although it names the closest ones."""

_MOST_TENSORS = 20
"""Tensors of each kind that an error lists."""


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Checks the numbers by which the channels of images are normalized.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Raises:
        ValueError: Their lengths differ, there is none, or a `std` is not above 0.
    """
    if len(mean) != len(std) or not all(value > 0 for value in std) or not std:
        raise ValueError(
            f"`mean` and `std` need one number per channel, `std` above 0; received mean={mean}, std={std}."
        )


def one_of(what: str, value: object, options: Iterable[str]) -> str:
    """Returns `value` if it is one of the options.

    Args:
        what: Name of the argument, for the message.
        value: The received value.
        options: All allowed values.

    Raises:
        ValueError: It is not; the message names the closest options, and lists them, the first of many.
    """
    options = tuple(options)
    if isinstance(value, str) and value in options:
        return value
    close = _closest(str(value), options)
    hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
    listed = "" if close and len(options) > _MOST_LISTED else f" Options: {_options_shown(options)}."
    raise ValueError(f"Unknown {what} {value!r}.{hint}{listed}")


def _options_shown(options: tuple[str, ...]) -> str:
    """Returns the options, or the first of many and the number of the others."""
    left = len(options) - _MOST_LISTED
    shown = ", ".join(map(repr, options[:_MOST_LISTED])) or "(none exist)"
    return f"{shown}, and {left} others" if left > 0 else shown


def _closest(value: str, options: Iterable[str]) -> list[str]:
    """Returns up to three similar options, the most similar first; upper and lower case count as the same."""
    by_lower = {option.lower(): option for option in options}
    return [by_lower[name] for name in difflib.get_close_matches(value.lower(), by_lower, n=3)]


def check_count(name: str, value: object, *, least: int = 1) -> int:
    """Returns a count as a Python int, which JSON can store; also accepts NumPy integers.

    Args:
        name: Name of the argument, for the message.
        value: The received value.
        least: The minimum value.

    Raises:
        ValueError: `value` is below `least` or not an integer. A bool does not count as an integer.
    """
    return _count(name, value, least, f"an integer of at least {least}")


def check_count_or_none(name: str, value: object) -> int | None:
    """Returns None unchanged, or a count of at least 1 as a Python int, as `check_count` does.

    Args:
        name: Name of the argument, for the message.
        value: The received value.

    Raises:
        ValueError: `value` is neither None nor an integer of at least 1.
    """
    return None if value is None else _count(name, value, 1, "None or an integer of at least 1")


def _count(name: str, value: object, least: int, rule: str) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be {rule}; received {name}={value!r}.")
    return int(value)


def check_number(
    name: str, value: object, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """Returns a finite number as a Python float, which JSON can store; also accepts NumPy's numbers.

    Args:
        name: Name of the argument, for the message.
        value: The received value.
        least: The minimum value. None: no minimum.
        above: A limit that the value must exceed. None: no such limit.
        most: The maximum value. None: no maximum.

    Raises:
        ValueError: `value` is outside the limits, infinite, NaN, or no number. A bool is no number.
    """
    number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else float("nan")
    limits = {
        f"of at least {least}": least is None or number >= least,
        f"above {above}": above is None or number > above,
        f"at most {most}": most is None or number <= most,
    }
    if not (abs(number) < float("inf") and all(limits.values())):
        stated = " and ".join(text for text in limits if not text.endswith("None"))
        raise ValueError(f"`{name}` must be a finite number {stated}; received {name}={value!r}.")
    return number


def refuse_tf_keras(model: object) -> None:
    """Rejects a model of another Keras, which looks like one of Keras 3 but has none of its attributes.

    Args:
        model: Any object.

    Raises:
        ValueError: It is a model from tf_keras.
    """
    if any(base.__module__.partition(".")[0] == "tf_keras" for base in type(model).__mro__):
        raise ValueError(
            f"The model {getattr(model, 'name', '')!r} is from tf_keras (Keras 2); this package takes Keras 3 models. "
            "Save it with model.save('model.h5'), and load it with keras.models.load_model('model.h5')."
        )


def missing_package(package: str, extra: str, purpose: str) -> ImportError:
    """Returns the error for an optional package that is not installed.

    Args:
        package: Import name, such as "matplotlib".
        extra: The extra of se_keras that installs it.
        purpose: The feature that needs it, as a noun phrase.

    Returns:
        An ImportError for the caller to raise.
    """
    return ImportError(f"{purpose} needs the package {package!r}. Install it with: pip install 'se_keras[{extra}]'")


class WeightsMismatchError(ValueError):
    """A mismatch between the tensors of a checkpoint and those of a model.

    Attributes:
        title: The model to fill, and the source of the tensors.
        hint: A guess at what went wrong, or "".
        expected: Tensors that the model needs and the checkpoint lacks or has in another shape: one
            line per tensor, by its name in the checkpoint.
        unused: Tensors that the checkpoint has and the model does not need, or needs in another shape.
    """

    def __init__(self, title: str, expected: Mapping[str, str], unused: Mapping[str, str], hint: str = "") -> None:
        self.title = title
        self.hint = hint
        self.expected = dict(expected)
        self.unused = dict(unused)
        lines = [title]
        lines += _listed("  - ", self.expected, "expected, absent in checkpoint")
        lines += _listed("  + ", self.unused, "in checkpoint, never used")
        if hint:
            lines.append(f"Hint: {hint}")
        super().__init__("\n".join(lines))


def _listed(sign: str, entries: Mapping[str, str], heading: str) -> list[str]:
    if not entries:
        return []
    width = max(map(len, list(entries)[:_MOST_TENSORS]))
    lines = [f"{sign}{name:{width}}  {text}" for name, text in list(entries.items())[:_MOST_TENSORS]]
    if len(entries) > _MOST_TENSORS:
        lines.append(f"{sign}... and {len(entries) - _MOST_TENSORS} more")
    return [f"{sign}{heading}:", *lines]


class DownloadError(OSError):
    """The failure of all sources to provide a checkpoint's file."""


class ChecksumError(OSError):
    """A mismatch between the content of a file and the published one."""


class InUseError(RuntimeError):
    """A conflict with another process that is working on the same output."""
