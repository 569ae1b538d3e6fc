"""Registration of the package's classes as soon as Keras or KerasHub is imported, without importing them for it.

To load a saved model, users write `import se_keras` and use no name from it. Importing Keras there would also work,
but `se-keras list` would take seconds to print a table.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

_REGISTERS = {"keras": "se_keras.layers", "keras_hub": "se_keras.hub"}
"""The part of this package whose classes another package must know, by that package's name."""


def import_classes() -> None:
    """Imports each part now if its package is already imported, otherwise right after that is imported."""
    for package, part in _REGISTERS.items():
        if sys.modules.get(package) is not None:  # None forbids the import of a package
            _import(part)
    if not any(isinstance(finder, _After) for finder in sys.meta_path):
        sys.meta_path.insert(0, _After())


def _import(part: str) -> None:
    """Imports a part; a package that is too old for it can still be used without it."""
    try:
        importlib.import_module(part)
    except (ImportError, AttributeError) as error:
        warnings.warn(
            f"{part} cannot be imported, so saved models with its classes cannot be loaded: {error}", stacklevel=2
        )


class _After(importlib.abc.MetaPathFinder):
    """A finder that lets the other finders find such a package, and adds a step to its loading."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _REGISTERS:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in finders)), None)
        if spec is not None and spec.loader is not None:
            _add_step(spec.loader, _REGISTERS[fullname])
        return spec


def _add_step(loader: importlib.abc.Loader, part: str) -> None:
    execute = loader.exec_module

    def execute_and_import(module: ModuleType) -> None:
        execute(module)
        _import(part)

    loader.exec_module = execute_and_import  # type: ignore[method-assign]
