"""Imports whose messages are hidden, whenever they happen."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from se_keras.native_output import native_output_held


class QuietImport(importlib.abc.MetaPathFinder):
    """A finder that hides what compiled code prints while a package is loaded.

    On JAX and PyTorch, Keras imports TensorFlow only when it first serializes an object.

    Args:
        package: The name of the package.
    """

    def __init__(self, package: str) -> None:
        self.package, self._is_searching = package, False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of the package, whose loader is quiet; None for other modules."""
        if fullname != self.package or self._is_searching:
            return None
        self._is_searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._is_searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with native_output_held():
            self._loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def import_quietly(package: str) -> None:
    """Hides what a package prints when it is imported, now or later.

    Args:
        package: Its name.
    """
    if not any(isinstance(one, QuietImport) and one.package == package for one in sys.meta_path):
        sys.meta_path.insert(0, QuietImport(package))
