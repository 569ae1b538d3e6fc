"""Registration of the package's layers as soon as Keras is imported, without importing Keras for it.

To load a saved model, users write `import se_keras` and use no name from it. Importing Keras there would also work,
but `se-keras list` would take seconds to print a table.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_LAYERS = "se_keras.layers"


def import_layers() -> None:
    """Imports the layers now if Keras is already imported, otherwise right after it is imported."""
    if "keras" in sys.modules:
        importlib.import_module(_LAYERS)
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(importlib.abc.MetaPathFinder):
    """A finder that lets the other finders find `keras`, and adds a step to its loading."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        finders = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in finders)), None)
        if spec is not None and spec.loader is not None:
            _add_step(spec.loader)
        return spec


def _add_step(loader: importlib.abc.Loader) -> None:
    execute = loader.exec_module

    def execute_and_import(module: ModuleType) -> None:
        execute(module)
        importlib.import_module(_LAYERS)

    loader.exec_module = execute_and_import  # type: ignore[method-assign]
