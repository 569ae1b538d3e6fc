"""Fetching through the real client, and what goes wrong on the way."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
import socket
import subprocess
import threading
import time

import keras
import numpy as np
import pytest
import safetensors.numpy
from checkpoints import record, synthetic
from small_networks import answers

import se_keras
from se_keras.errors import DownloadError
from se_keras.weights.download import fetch
from se_keras.weights.home import cache_folder


def left_in(folder: pathlib.Path) -> list[str]:
    """Names of complete-looking checkpoint files below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix == ".safetensors")


def test_hub_file_is_fetched_once(hub, hub_record, legacy18_bytes):
    first, second = fetch(hub_record), fetch(hub_record)
    assert first == second
    assert first.read_bytes() == legacy18_bytes
    assert len(hub.downloads()) == 1, hub.requests


def test_plain_file_is_fetched_once(hub, web_record, legacy18_bytes):
    first, second = fetch(web_record), fetch(web_record)
    assert first == second
    assert first.read_bytes() == legacy18_bytes
    assert hub.downloads() == [None]


def test_cut_connection_is_resumed_at_a_plain_address(hub, web_record, legacy18_bytes):
    hub.cut_after = len(legacy18_bytes) * 3 // 10
    with pytest.raises(DownloadError, match=r"closed at .* the next call resumes from there"):
        fetch(web_record)
    assert left_in(cache_folder()) == []
    assert fetch(web_record).read_bytes() == legacy18_bytes
    assert hub.downloads() == [None, f"bytes={len(legacy18_bytes) * 3 // 10}-"]


def test_cut_connection_is_resumed_on_the_hub(hub, hub_record, legacy18_bytes):
    hub.cut_after = len(legacy18_bytes) * 3 // 10
    assert fetch(hub_record).read_bytes() == legacy18_bytes
    ranges = hub.downloads()
    assert ranges[0] is None
    assert int(ranges[-1].split("=")[1].rstrip("-")) > 0


@pytest.mark.parametrize("kind", ["hub_record", "web_record"])
def test_flipped_bit_is_refused_and_not_kept(kind, hub, request, legacy18_bytes):
    record = request.getfixturevalue(kind)
    hub.flip_bit = True
    with pytest.raises(DownloadError, match="the content is not the published one"):
        fetch(record)
    hub.flip_bit = False
    assert fetch(record).read_bytes() == legacy18_bytes


def test_web_page_with_status_200_is_told(hub, web_record, legacy18_bytes):
    hub.error_page = True
    with pytest.raises(DownloadError, match="it is a web page"):
        fetch(web_record)
    hub.error_page = False
    assert fetch(web_record).read_bytes() == legacy18_bytes


def test_damage_in_the_cache_is_noticed(hub, web_record, legacy18_bytes):
    path = fetch(web_record)
    path.write_bytes(legacy18_bytes[:-100])
    assert fetch(web_record).read_bytes() == legacy18_bytes


def test_part_of_another_file_is_dropped(hub, web_record, legacy18_bytes):
    part = cache_folder() / "downloads" / web_record.identifier / "seresnet18.safetensors.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(legacy18_bytes) + 5))
    assert fetch(web_record).read_bytes() == legacy18_bytes


def test_second_source_is_taken_when_the_first_fails(hub, hub_record, web_record, legacy18_bytes):
    both = record(sources=(hub_record.sources[0], *web_record.sources))
    del hub.files["test/seresnet18/model.safetensors"]
    assert fetch(both).read_bytes() == legacy18_bytes


def test_offline_with_a_warm_cache_asks_nothing(hub, hub_record, web_record, monkeypatch):
    paths = fetch(hub_record), fetch(web_record)
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (fetch(hub_record), fetch(web_record)) == paths
    assert len(hub.requests) == asked


@pytest.mark.parametrize("kind", ["hub_record", "web_record"])
def test_offline_with_a_cold_cache_says_what_to_do(kind, hub, request, monkeypatch):
    record = request.getfixturevalue(kind)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.perf_counter()
    with pytest.raises(DownloadError, match=r"HF_HUB_OFFLINE is set[\s\S]*SE_KERAS_WEIGHTS_MIRROR"):
        fetch(record)
    assert time.perf_counter() - started < 3
    assert hub.requests == []


def test_no_network_fails_soon(hub, hub_record, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    started = time.perf_counter()
    with pytest.raises(DownloadError, match="could not be downloaded"):
        fetch(hub_record)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize("mirror", ["folder", "address"])
def test_mirror_comes_first(mirror, hub, hub_record, legacy18_bytes, tmp_path, monkeypatch):
    digest = f"{__import__('hashlib').sha256(legacy18_bytes).hexdigest()}  model.safetensors\n"
    name = f"{hub_record.identifier}/model.safetensors"
    if mirror == "folder":
        target = tmp_path / "house" / name
        target.parent.mkdir(parents=True)
        target.write_bytes(legacy18_bytes)
        target.with_name("model.safetensors.sha256").write_text(digest)
        monkeypatch.setenv("SE_KERAS_WEIGHTS_MIRROR", str(tmp_path / "house"))
    else:
        hub.files |= {f"house/{name}": legacy18_bytes, f"house/{name}.sha256": digest.encode()}
        monkeypatch.setenv("SE_KERAS_WEIGHTS_MIRROR", f"{hub.url}/house")
    assert fetch(hub_record).read_bytes() == legacy18_bytes
    assert not [path for _, path, _ in hub.requests if "resolve" in path]


def test_a_mirror_that_speaks_another_protocol_is_passed_over(hub, hub_record, legacy18_bytes, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        monkeypatch.setenv("SE_KERAS_WEIGHTS_MIRROR", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert fetch(hub_record).read_bytes() == legacy18_bytes
        thread.join()


def test_offline_a_mirrors_file_is_verified_without_asking_it(hub, hub_record, legacy18_bytes, monkeypatch):
    name = f"house/{hub_record.identifier}/model.safetensors"
    hub.files |= {name: legacy18_bytes, f"{name}.sha256": hashlib.sha256(legacy18_bytes).hexdigest().encode()}
    monkeypatch.setenv("SE_KERAS_WEIGHTS_MIRROR", f"{hub.url}/house")
    path = fetch(hub_record)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert fetch(hub_record) == path
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="the content is not the published one"):
        fetch(hub_record)
    assert path.read_bytes() == b"damaged"
    assert not hub.requests


def test_mirror_without_a_hash_is_not_trusted(hub, hub_record, tmp_path, monkeypatch, legacy18_bytes):
    target = tmp_path / "house" / hub_record.identifier / "model.safetensors"
    target.parent.mkdir(parents=True)
    target.write_bytes(legacy18_bytes)
    monkeypatch.setenv("SE_KERAS_WEIGHTS_MIRROR", str(tmp_path / "house"))
    hub.files.clear()
    with pytest.raises(DownloadError, match=r"put model\.safetensors\.sha256 next to it"):
        fetch(hub_record)


def test_too_small_a_disk_is_told_before_anything_is_written(hub, web_record, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage(10, 9, 1_000_000))
    with pytest.raises(DownloadError, match="has 1 MB free; the file needs"):
        fetch(web_record)
    assert left_in(cache_folder()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_full_disk_leaves_no_damaged_cache(hub, web_record, legacy18_bytes, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        monkeypatch.setenv("SE_KERAS_HOME", str(small))
        monkeypatch.setattr("se_keras.weights.download._check_space", lambda folder, needed: None)
        with pytest.raises(DownloadError, match="No space left"):
            fetch(web_record)
        assert left_in(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_no_permission_to_write(hub, web_record, tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("SE_KERAS_HOME", str(blocked))
    with pytest.raises(DownloadError, match="could not be downloaded"):
        fetch(web_record)


@pytest.mark.slow
def test_two_processes_at_once(hub, web_record, legacy18_bytes, run_warm):
    code = (
        "import hashlib, os; other = os.fork(); from se_keras.weights.download import fetch;"
        "from se_keras.weights.records import *; from se_keras.images.record import Preprocessing;"
        f"source = WebFile(url={web_record.sources[0].url!r}, sha256={web_record.sources[0].sha256!r});"
        "r = WeightsRecord(model='se_resnet18', tag='test_in1k', family='timm_legacy', lineage='legacy', "
        "sources=(source,), preprocessing=Preprocessing(), accuracy=(), parameters=1, macs=1, "
        "license='', provenance='', "
        "unverified=''); print(hashlib.sha256(fetch(r).read_bytes()).hexdigest()); "
        "assert not other or os.waitpid(other, 0)[1] == 0"
    )
    assert run_warm(code).split() == [hashlib.sha256(legacy18_bytes).hexdigest()] * 2
    assert len(hub.downloads()) == 1, hub.requests


@pytest.mark.slow
def test_a_checkpoint_of_other_classes_keeps_them_unless_told_otherwise(hub):
    tensors = synthetic("mobilenetv3_large_100", "timm_mobile", classes=11221)
    hub.files["timm/mobilenetv3_large_100.miil_in21k/model.safetensors"] = safetensors.numpy.save(tensors)
    model = se_keras.MobileNetV3Large(weights="miil_in21k")
    assert model.output_shape == (None, 11221)
    np.testing.assert_array_equal(model.get_layer("logits").kernel, tensors["classifier.weight"].T)
    assert se_keras.get_preprocessing(model).mean == (0.0, 0.0, 0.0)
    assert se_keras.MobileNetV3Large(weights="miil_in21k", classes=5).output_shape == (None, 5)
    with pytest.raises(ValueError, match=r"11221.*class_names"):
        se_keras.decode_predictions(np.ones((1, 11221)))


@pytest.mark.slow
def test_a_checkpoint_without_a_classifier_is_loaded_without_one(hub):
    tensors = synthetic("regnety_320", "timm_regnet", include_top=False)
    hub.files["timm/regnety_320.seer/model.safetensors"] = safetensors.numpy.save(tensors)
    with pytest.warns(UserWarning, match="forbids commercial use"):
        model = se_keras.RegNetY320(weights="seer", include_top=False, pooling="avg")
    np.testing.assert_array_equal(
        model.get_layer("stem_conv").kernel, tensors["stem.conv.weight"].transpose(2, 3, 1, 0)
    )
    with pytest.raises(ValueError, match=r"'seer' has no classifier\. Pass include_top"):
        se_keras.RegNetY320(weights="seer")


@pytest.mark.slow
def test_default_weights_end_to_end(hub):
    """`SEResNet50()` as a user calls it: the record's own names, the real client, conversion, cache."""
    tensors = synthetic("se_resnet50", "timm", lineage="timm")
    hub.files["timm/seresnet50.ra2_in1k/model.safetensors"] = safetensors.numpy.save(tensors)
    model = se_keras.SEResNet50(input_shape=(64, 64, 3))
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel),
        tensors["conv1.weight"].transpose(2, 3, 1, 0),
    )
    downloads = len(hub.downloads())
    again = se_keras.SEResNet50(input_shape=(64, 64, 3))
    images = np.full((1, 64, 64, 3), 100, "uint8")
    np.testing.assert_array_equal(answers(again, images), answers(model, images))
    assert len(hub.downloads()) == downloads
