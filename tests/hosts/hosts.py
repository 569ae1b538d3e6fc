"""The networks that the table is about, by package; each is small, has random weights, and is built when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import of_keras
import of_keras_hub
import of_kimm
import of_medicai
import of_users
import of_zeromodels

PACKAGES: dict[str, Mapping[str, Callable[[], keras.Model]]] = {
    "keras": of_keras.NETWORKS,
    "keras_hub": of_keras_hub.NETWORKS,
    "kimm": of_kimm.NETWORKS,
    "medicai": of_medicai.NETWORKS,
    "zeromodels": of_zeromodels.NETWORKS,
    "users": of_users.NETWORKS,
}
"""From the name of a package, as it is imported, to its networks; "users" are written by hand."""

HOSTS = {f"{package}/{name}": build for package, networks in PACKAGES.items() for name, build in networks.items()}


def package_of(name: str) -> str:
    """The package that a network needs, beyond Keras; "" for none."""
    package = name.split("/")[0]
    return "" if package in ("keras", "users") else package
