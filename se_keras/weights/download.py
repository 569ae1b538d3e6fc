"""Download of checkpoint files: the only module that accesses the network."""

from __future__ import annotations

import hashlib
import http.client
import importlib.resources
import os
import pathlib
import re
import shutil
from typing import Any

from se_keras.errors import ChecksumError, DownloadError, missing_package
from se_keras.files import locked
from se_keras.weights.home import cache_folder
from se_keras.weights.records import BundledFile, HubFile, LocalFile, WebFile, WeightsRecord

TIMEOUT = 30  # seconds without data
_CHUNK = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")
_GIT_HEX = re.compile(r"[0-9a-f]{40}")


def fetch(record: WeightsRecord) -> pathlib.Path:
    """Downloads a checkpoint's file, if it is not in the cache yet, and verifies its content.

    Your own mirror is tried first: `SE_KERAS_WEIGHTS_MIRROR`, a URL or a folder that contains
    MODEL.TAG/FILE, with FILE.sha256 next to files whose hash is not in the record. The record's
    sources follow in order. `HF_ENDPOINT`, `HF_HOME`, and `HF_HUB_OFFLINE` work as
    in `huggingface_hub`; the last one turns off all network access.

    Args:
        record: The checkpoint.

    Returns:
        The verified file, in a cache.

    Raises:
        DownloadError: Every source failed; the message states why.
        ImportError: `huggingface_hub` is not installed.
    """
    failures, mirror = [], os.environ.get("SE_KERAS_WEIGHTS_MIRROR")
    for source in record.sources:
        if isinstance(source, LocalFile):
            return pathlib.Path(source.path)
        if isinstance(source, BundledFile):
            return _from_package(source)
        for attempt in (_from_mirror, _from_origin):
            try:
                path = attempt(source, record)
            except (OSError, ValueError, http.client.HTTPException) as error:
                where = f"mirror {mirror}" if attempt is _from_mirror else source.where
                failures.append(f"{where}: {_first_line(error)}")
                continue
            if path is not None:
                return path
    offline = " HF_HUB_OFFLINE is set: unset it to download." if _is_offline() else ""
    raise DownloadError(
        f"The checkpoint {record.identifier!r} could not be downloaded.{offline}\n"
        + "\n".join(f"  {failure}" for failure in failures)
        + "\nOn a machine without a network, copy the file from another one and pass its path as `weights`, or put it "
        f"into a folder as {record.identifier}/{record.sources[0].file} and set SE_KERAS_WEIGHTS_MIRROR to that folder."
    )


def fetch_from_repository(repository: str, *files: str, revision: str = "main") -> pathlib.Path:
    """Downloads a file from a repository of the Hugging Face Hub, if it is not in the cache yet.

    `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, and `HF_HUB_OFFLINE` work as in `huggingface_hub`.

    Args:
        repository: "owner/name".
        files: Names of files in it, in order of preference; the first one that exists is taken.
        revision: Branch, tag, or full commit.

    Returns:
        The verified file, in a cache.

    Raises:
        DownloadError: None of the files could be downloaded; the message states the hub's replies.
        ImportError: `huggingface_hub` is not installed.
    """
    failures = []
    for file in files:
        source = HubFile(repository=repository, file=file, revision=revision)
        try:
            return _from_hub(source)
        except OSError as error:
            failures.append(f"{source.where}: {_first_line(error)}")
            if isinstance(error, ChecksumError):
                break
    offline = " HF_HUB_OFFLINE is set: unset it to download." if _is_offline() else ""
    at = "" if revision == "main" else f" (revision {revision!r})"
    raise DownloadError(
        f"The repository {repository!r}{at} could not be read.{offline} Check its name; a private one needs HF_TOKEN.\n"
        + "\n".join(f"  {failure}" for failure in failures)
    )


def _from_package(source: BundledFile) -> pathlib.Path:
    path = pathlib.Path(str(importlib.resources.files("se_keras").joinpath(f"data/{source.file}")))
    _verify(path, {"sha256": source.sha256})
    return path


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _from_origin(source: HubFile | WebFile, record: WeightsRecord) -> pathlib.Path:
    return _from_hub(source) if isinstance(source, HubFile) else _from_web(source, record)


def _from_hub(source: HubFile) -> pathlib.Path:
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise missing_package("huggingface_hub", "weights", "Downloading published weights") from error
    endpoint = os.environ.get("HF_ENDPOINT") or None
    where: dict[str, Any] = {
        "repo_id": source.repository,
        "filename": source.file,
        "revision": source.revision,
        "cache_dir": cache_folder() / "hub" if "SE_KERAS_HOME" in os.environ else None,
    }
    try:
        cached = hub.hf_hub_download(**where, local_files_only=True)
    except hub.errors.LocalEntryNotFoundError:
        if _is_offline():
            raise
        # A first request, because without a network the download itself would retry for half a minute.
        address = hub.hf_hub_url(source.repository, source.file, revision=source.revision, endpoint=endpoint)
        try:
            hub.get_hf_file_metadata(address)
        except Exception as error:  # from the HTTP client of this version of huggingface_hub
            raise OSError(f"{type(error).__name__}: {_first_line(error)}") from error
        cached = hub.hf_hub_download(**where, endpoint=endpoint)
    path = pathlib.Path(cached)
    blob = path.resolve()
    # In its cache, the hub names a file by the hash that it states: a large one by SHA-256, a small one by git's.
    algorithm = "git" if _GIT_HEX.fullmatch(blob.name) else "sha256" if _HEX.fullmatch(blob.name) else ""
    known = {algorithm: blob.name} if algorithm and not source.sha256 else {"sha256": source.sha256}
    try:
        _verify(path, known)
    except ChecksumError:
        blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise
    return path


def _from_web(source: WebFile, record: WeightsRecord) -> pathlib.Path:
    known = {"sha256": source.sha256, "sha384": source.sha384}
    return _downloaded(source.url, cache_folder() / "downloads" / record.identifier / source.file, known)


def _from_mirror(source: HubFile | WebFile, record: WeightsRecord) -> pathlib.Path | None:
    mirror = os.environ.get("SE_KERAS_WEIGHTS_MIRROR")
    if not mirror:
        return None
    relative = f"{record.identifier}/{source.file}"
    known = {"sha256": source.sha256, "sha384": source.sha384 if isinstance(source, WebFile) else ""}
    if mirror.startswith(("http://", "https://")):
        url, target = f"{mirror.rstrip('/')}/{relative}", cache_folder() / "downloads" / record.identifier / source.file
        if not any(known.values()):
            known["sha256"] = _stated_by_mirror(url, target)
        return _downloaded(url, target, known)
    path = pathlib.Path(mirror).expanduser() / relative
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {relative}")
    side = path.with_name(f"{path.name}.sha256")
    known["sha256"] = known["sha256"] or (_stated(side.read_text("utf-8")) if side.is_file() else "")
    _verify(path, known)
    return path


def _stated_by_mirror(url: str, target: pathlib.Path) -> str:
    """Returns the SHA-256 hash that a mirror states for a file, kept next to the download for when it is offline."""
    side = target.with_name(f"{target.name}.sha256")
    if not _is_offline():
        stated = _stated(_read_text(f"{url}.sha256"))
        side.parent.mkdir(parents=True, exist_ok=True)
        side.write_text(stated, "utf-8")  # a file that is cut short states no hash
    return _stated(side.read_text("utf-8")) if side.is_file() else ""


def _stated(text: str) -> str:
    match = _HEX.search(text)
    return match[0] if match else ""


def _read_text(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
        return response.read(4096).decode("ascii", "replace")


def _downloaded(url: str, target: pathlib.Path, known: dict[str, str]) -> pathlib.Path:
    """Returns a verified copy of a URL: the existing file, or a new download that resumes an interrupted one."""
    import urllib.error

    if _is_offline() and not target.is_file():
        raise FileNotFoundError("not in the cache, and HF_HUB_OFFLINE is set")
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f"{target.name}.lock"), target, patience=-1):
        if target.is_file():
            try:
                _verify(target, known)
                return target
            except ChecksumError:
                if _is_offline():
                    raise
            target.unlink()
        part = target.with_name(f"{target.name}.part")
        try:
            _append_rest(url, part)
        except urllib.error.HTTPError as error:
            if error.code != 416:  # the partial file is not the start of this one
                raise
            part.unlink()
            _append_rest(url, part)
        try:
            _verify(part, known)
        except ChecksumError:
            part.unlink()
            raise
        part.replace(target)
    return target


def _append_rest(url: str, part: pathlib.Path) -> None:
    import urllib.request

    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = (have if resumed else 0) + int(length) if length else None
        _check_space(part.parent, total)
        with open(part, "ab" if resumed else "wb") as stream:
            _copy(response, stream, total, have if resumed else 0, part.name)
    got = part.stat().st_size
    if total is not None and got != total:
        raise OSError(f"the connection closed at {got:,} of {total:,} bytes; the next call resumes from there")


def _check_space(folder: pathlib.Path, needed: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise OSError(f"{folder} has {free / 1e6:.0f} MB free; the file needs {needed / 1e6:.0f} MB")


def _copy(response: Any, stream: Any, total: int | None, done: int, name: str) -> None:
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=name, delay=2) as bar:
        while chunk := response.read(_CHUNK):
            stream.write(chunk)
            bar.update(len(chunk))


def _verify(path: pathlib.Path, known: dict[str, str]) -> None:
    """Compares a file with known hashes, or their first digits.

    Raises:
        ChecksumError: They differ, or none is known.
    """
    known = {algorithm: digits for algorithm, digits in known.items() if digits}
    if not known:
        raise ChecksumError(
            f"no hash is known to verify {path.name} with; put {path.name}.sha256 next to it (sha256sum)"
        )
    for algorithm, digits in known.items():
        with open(path, "rb") as stream:
            found = _digest(stream, algorithm) if algorithm != "git" else _git_digest(stream, path.stat().st_size)
        if not found.startswith(digits):
            kind = _looks_like(path)
            raise ChecksumError(
                f"the content is not the published one: {algorithm} {found[:16]}..., expected {digits[:16]}...{kind}"
            )


def _git_digest(stream: Any, size: int) -> str:
    return _digest(stream, "sha1", start=b"blob %d\0" % size)


def _digest(stream: Any, algorithm: str, *, start: bytes = b"") -> str:
    digest = hashlib.new(algorithm, start, usedforsecurity=False)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _looks_like(path: pathlib.Path) -> str:
    with open(path, "rb") as stream:
        start = stream.read(512).lstrip().lower()
    return " (it is a web page, perhaps an error or login page)" if start.startswith((b"<!doctype", b"<html")) else ""
