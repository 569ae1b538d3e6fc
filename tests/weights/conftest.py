"""A hub on loopback, a cache of its own for each test, and a checkpoint to fetch from it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import safetensors.numpy
from checkpoints import record, synthetic
from hub import Hub, running_hub

from se_keras.weights import published
from se_keras.weights.records import WebFile, WeightsRecord


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with running_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("SE_KERAS_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.delenv("SE_KERAS_WEIGHTS_MIRROR", raising=False)
        yield server


@pytest.fixture(scope="session")
def legacy18() -> dict[str, np.ndarray]:
    return synthetic("se_resnet18", "timm_legacy", "legacy")


@pytest.fixture(scope="session")
def legacy18_bytes(legacy18) -> bytes:
    return safetensors.numpy.save(legacy18)


@pytest.fixture
def hub_record(hub: Hub, legacy18_bytes: bytes, monkeypatch) -> WeightsRecord:
    """A published checkpoint on the hub, which the registry knows as se_resnet18.test_in1k."""
    hub.files["test/seresnet18/model.safetensors"] = legacy18_bytes
    return _register(record(), monkeypatch)


@pytest.fixture
def web_record(hub: Hub, legacy18_bytes: bytes, monkeypatch) -> WeightsRecord:
    """The same at a plain address."""
    hub.files["files/seresnet18.safetensors"] = legacy18_bytes
    digest = hashlib.sha256(legacy18_bytes).hexdigest()
    source = WebFile(url=f"{hub.url}/files/seresnet18.safetensors", sha256=digest[:8])
    return _register(record(sources=(source,)), monkeypatch)


def _register(added: WeightsRecord, monkeypatch) -> WeightsRecord:
    monkeypatch.setitem(published.RECORDS, added.identifier, added)
    return added
