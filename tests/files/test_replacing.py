"""Outputs are whole under their final name or absent, and nothing else is touched, whatever happens on the way."""

import contextlib
import errno
import json
import math
import os
import pathlib
import resource
import shutil
import stat
import sys
import threading
import traceback
import warnings

import keras
import pytest

import se_keras
from se_keras.errors import InUseError
from se_keras.files import (
    SAVED_MODEL,
    check_targets,
    json_with,
    kind_of,
    locked,
    moves,
    replacing,
    replacing_together,
    signature,
    table_of,
    whole,
    writing,
)

OLD, NEW = b"\0\0\0\0TFL3 old", b"\0\0\0\0TFL3 new"


def listing(folder):
    """Every file below a folder with its content, every folder, and every link with its target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes()
        found[path.relative_to(folder).as_posix()] = content
    return found


def write_saved_model(folder, content):
    (folder / "variables").mkdir(parents=True)
    (folder / "assets").mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01" + content)
    (folder / "variables/variables.index").write_bytes(content)
    (folder / "variables/variables.data-00000-of-00001").write_bytes(content)
    (folder / "assets/labels.txt").write_bytes(content)


def write_one(folder, content, overwrite):
    with replacing(folder / "m.tflite", overwrite=overwrite) as temporary:
        temporary.write_bytes(content)


def write_folder(folder, content, overwrite):
    with replacing(folder / "m", overwrite=overwrite, kind=SAVED_MODEL) as temporary:
        write_saved_model(temporary, content)


def write_pair(folder, content, overwrite):
    targets = {folder / "m.tflite": kind_of("m.tflite"), folder / "m.json": json_with("dtype")}
    with replacing_together(targets, overwrite=overwrite) as (file, beside):
        file.write_bytes(content)
        beside.write_text(json.dumps({"dtype": content.hex()}))


WRITERS = {"file": write_one, "folder": write_folder, "pair": write_pair}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.fixture(params=[True, False], ids=["exchange", "no exchange"])
def system(request, monkeypatch):
    """A system that can exchange two files or folders in one step, and one that cannot."""
    if not request.param:
        monkeypatch.setattr(moves, "_renamed", lambda source, target, how: False)
    return request.param


# What is written.


def test_writes_under_the_final_name_and_leaves_nothing_else(write, system, tmp_path):
    write(tmp_path / "new", OLD, False)
    first = listing(tmp_path / "new")
    write(tmp_path / "new", NEW, True)
    write(tmp_path / "again", NEW, True)
    assert listing(tmp_path / "new") == listing(tmp_path / "again") != first
    assert first.keys() == listing(tmp_path / "new").keys()
    assert not [name for name in first if name.startswith(".")]


def test_a_failure_leaves_what_was_there(write, system, tmp_path):
    write(tmp_path, OLD, False)
    before = listing(tmp_path)
    for error in (OSError("broken"), KeyboardInterrupt()):

        def fail(folder, content, error=error):
            raise error

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(pathlib.Path, "write_bytes", fail)
            with pytest.raises(type(error)):
                write(tmp_path, NEW, True)
        assert listing(tmp_path) == before


def test_nothing_written_is_an_error_for_one_and_no_change_for_one_of_several(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"Nothing was written for '.*m.tflite'"),
        replacing(tmp_path / "m.tflite", overwrite=False),
    ):
        pass
    kinds = {tmp_path / "a.csv": kind_of("a.csv"), tmp_path / "b.csv": kind_of("b.csv")}
    with replacing_together(kinds, overwrite=False) as (first, _):
        first.write_text("file,error\n")
    assert list(listing(tmp_path)) == ["a.csv"]


def test_rights_are_those_of_the_process_or_of_what_is_replaced(tmp_path):
    umask = os.umask(0o027)
    try:
        write_one(tmp_path, OLD, False)
        assert stat.S_IMODE((tmp_path / "m.tflite").stat().st_mode) == 0o640
        (tmp_path / "m.tflite").chmod(0o604)
        write_one(tmp_path, NEW, True)
        assert stat.S_IMODE((tmp_path / "m.tflite").stat().st_mode) == 0o604
        with replacing(tmp_path / "n.tflite", overwrite=False) as temporary:
            os.close(os.open(temporary, os.O_CREAT, 0o600))
        assert stat.S_IMODE((tmp_path / "n.tflite").stat().st_mode) == 0o640
    finally:
        os.umask(umask)


def test_weights_are_readable_for_whom_other_files_are(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    umask = os.umask(0o022)
    try:
        se_keras.save_safetensors(model, tmp_path / "w.safetensors")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o644


def test_contents_are_on_the_disk_before_they_get_their_name(write, system, tmp_path, monkeypatch):
    write(tmp_path, OLD, False)
    steps, descriptors = [], os.fsync

    def synced(descriptor):
        steps.append(pathlib.Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        descriptors(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", synced)
    put = writing._put

    def noted(place, *rest):
        steps.append("put")
        put(place, *rest)

    monkeypatch.setattr(writing, "_put", noted)
    write(tmp_path, NEW, True)
    first = steps.index("put")
    synced_before = {path.name for path in steps[:first]}
    written = {path.rpartition("/")[2] for path, content in listing(tmp_path).items() if isinstance(content, bytes)}
    assert written <= synced_before
    assert steps[-1] == tmp_path


# What is not replaced.


def test_what_exists_is_replaced_only_if_asked(write, system, tmp_path):
    write(tmp_path, OLD, False)
    before = listing(tmp_path)
    with pytest.raises(FileExistsError, match=r"already exists. Pass overwrite=True to replace it; .* --overwrite"):
        write(tmp_path, NEW, False)
    assert listing(tmp_path) == before


STRANGERS = {
    "m.tflite": b"thesis",
    "m.json": b'{"my": "settings"}',
    "m/thesis.txt": b"",
    "m/saved_model.pb/thesis": b"",
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_not_ours_is_never_replaced(stranger, overwrite, tmp_path):
    write = write_folder if stranger.startswith("m/") else write_pair
    (tmp_path / stranger).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / stranger).write_bytes(STRANGERS[stranger])
    before = listing(tmp_path)
    with pytest.raises(
        FileExistsError, match=r"' is a f.* can be replaced there. Choose another path, or move"
    ) as caught:
        write(tmp_path, NEW, overwrite)
    assert "overwrite=True" not in str(caught.value)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", [".", "..", "work", "work/inside/..", "link"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_the_working_folder_and_those_around_it_are_never_replaced(name, overwrite, tmp_path, monkeypatch):
    write_saved_model(tmp_path / "work", b"")
    (tmp_path / "work/inside").mkdir()
    (tmp_path / "link").symlink_to("work")
    monkeypatch.chdir(tmp_path if name in (".", "..") else tmp_path / "work/inside")
    before = listing(tmp_path)
    path = name if name in (".", "..") else tmp_path / name
    with pytest.raises(FileExistsError, match="is the working folder or contains it"):
        check_targets({path: SAVED_MODEL}, overwrite=overwrite)
    with (
        pytest.raises(FileExistsError, match="Choose another path"),
        replacing(path, overwrite=overwrite, kind=SAVED_MODEL),
    ):
        pass
    assert listing(tmp_path) == before


def test_the_home_folder_is_never_replaced(tmp_path, monkeypatch):
    write_saved_model(tmp_path / "home", b"")
    monkeypatch.setenv("HOME", os.fspath(tmp_path / "home"))
    with pytest.raises(FileExistsError, match="is the home folder"):
        check_targets({tmp_path / "home": SAVED_MODEL}, overwrite=True)


def test_an_empty_file_or_folder_may_be_replaced(tmp_path):
    (tmp_path / "m.tflite").touch()
    (tmp_path / "m").mkdir()
    write_pair(tmp_path, NEW, True)
    write_folder(tmp_path, NEW, True)
    assert (tmp_path / "m.tflite").read_bytes() == NEW


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "m.tflite")
    with pytest.raises(FileExistsError, match="neither a file nor a folder"):
        write_one(tmp_path, NEW, True)


def test_what_came_while_writing_is_not_replaced(write, system, tmp_path):
    name = "m" if write is write_folder else "m.tflite"

    def interfering(path, content, write_bytes=pathlib.Path.write_bytes):
        write_bytes(path, content)
        if not (tmp_path / name).exists():
            write_bytes(tmp_path / name, b"precious")

    for overwrite in (False, True):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(pathlib.Path, "write_bytes", interfering)
            with pytest.raises(FileExistsError):
                write(tmp_path, NEW, overwrite)
        assert listing(tmp_path) == {name: b"precious"}
        (tmp_path / name).unlink()


def test_a_name_taken_in_the_last_moment_is_seen(write, system, tmp_path, monkeypatch):
    check, name = writing._check, "m" if write is write_folder else "m.tflite"
    calls = []

    def late(places, overwrite):
        check(places, overwrite)
        calls.append(places)
        if len(calls) == 2:
            (tmp_path / name).write_bytes(b"precious")

    monkeypatch.setattr(writing, "_check", late)
    with pytest.raises(FileExistsError, match="already exists"):
        write(tmp_path, NEW, False)
    assert listing(tmp_path) == {name: b"precious"}


def test_what_came_in_the_last_moment_is_put_back(tmp_path, monkeypatch):
    if not moves.exchange(tmp_path, tmp_path):
        pytest.skip("needs a system that can exchange two files in one step")
    write_pair(tmp_path, OLD, False)
    put = writing._put

    def late(place, *rest):
        if place.final.name == "m.json":
            place.final.write_text("precious")
        put(place, *rest)

    monkeypatch.setattr(writing, "_put", late)
    with pytest.raises(FileExistsError, match="begins with b'precious'"):
        write_pair(tmp_path, NEW, True)
    assert listing(tmp_path) == {"m.json": b"precious", "m.tflite": OLD}


def test_links_are_followed(system, tmp_path):
    (tmp_path / "real").mkdir()
    write_one(tmp_path / "real", OLD, False)
    write_folder(tmp_path / "real", OLD, False)
    for name in ("m.tflite", "m"):
        (tmp_path / name).symlink_to(f"real/{name}")
    with pytest.raises(FileExistsError, match="already exists"):
        write_one(tmp_path, NEW, False)
    write_one(tmp_path, NEW, True)
    write_folder(tmp_path, NEW, True)
    found = listing(tmp_path)
    assert (found["m.tflite"], found["m"]) == ("real/m.tflite", "real/m")
    assert found["real/m.tflite"] == found["real/m/variables/variables.index"] == NEW
    (tmp_path / "new.tflite").symlink_to("real/new.tflite")
    with replacing(tmp_path / "new.tflite", overwrite=False) as temporary:
        temporary.write_bytes(NEW)
    assert listing(tmp_path)["real/new.tflite"] == NEW
    (tmp_path / "m.keras").symlink_to("real/0a1b")  # as in a cache that names files by their content
    with replacing(tmp_path / "m.keras", overwrite=False) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_bytes(NEW)
    assert listing(tmp_path)["real/0a1b"] == NEW
    (tmp_path / "loop.tflite").symlink_to("loop.tflite")
    with pytest.raises(FileExistsError), replacing(tmp_path / "loop.tflite", overwrite=True):
        pass


# A full disk, and what else the system refuses.


def test_a_full_disk_is_one_line_that_names_the_target(write, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for state in ("nothing was there before", "what was there is unchanged"):
        before = listing(tmp_path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OSError, match="could not be written") as caught:
                write(tmp_path, NEW * 1000, True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert state in str(caught.value)
        assert os.strerror(errno.EFBIG) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert listing(tmp_path) == before
        write(tmp_path, OLD, True)


def test_a_refusal_of_the_system_names_the_target(tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)

    monkeypatch.setattr(writing, "move_if_free", refused)
    with pytest.raises(OSError, match=r"m.tflite' could not be written: Permission denied"):
        write_one(tmp_path, NEW, False)
    assert list(listing(tmp_path)) == []


def test_a_file_of_a_folder_of_ones_own(tmp_path):
    for content in ("one", "two"):
        with whole(tmp_path / "part") as partial:
            partial.write_text(content)
    with pytest.raises(OSError, match=r"'.*part' could not be written: No space"), whole(tmp_path / "part") as partial:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert listing(tmp_path) == {"part": b"two"}


# Two at once.


def test_two_at_once_on_one_target(write, tmp_path):
    inside, done = threading.Event(), threading.Event()

    def first():
        targets = {tmp_path / name: kind_of("m.tflite") for name in ("m", "m.tflite")}
        with replacing_together(targets, overwrite=False):
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    try:
        with pytest.raises(InUseError, match="Another process is at work on"):
            write(tmp_path, NEW, True)
        with pytest.raises(InUseError):
            check_targets({tmp_path / "m.tflite": kind_of("m.tflite")}, overwrite=True)
    finally:
        done.set()
        thread.join()
    write(tmp_path, NEW, False)


def test_a_lock_is_held_by_one_at_a_time_though_its_file_is_removed(tmp_path):
    """Each holder removes the lock file and the folder while others open them."""
    holders, most, failures = [], [], []

    def work():
        for _ in range(30):
            try:
                with locked(tmp_path / "x" / "lock", "x", patience=20):
                    holders.append(1)
                    most.append(len(holders))
                    holders.pop()
                if os.path.isdir(tmp_path / "x"):
                    os.rmdir(tmp_path / "x")
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert set(most) == {1}
    assert len(most) > 100


def test_a_hidden_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / ".m.tflite.writing").mkdir()
    (tmp_path / ".m.tflite.writing/thesis").touch()
    before = listing(tmp_path)
    with pytest.raises(FileExistsError, match="holds something else"):
        write_one(tmp_path, NEW, True)
    assert listing(tmp_path) == before


def test_a_lock_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / ".lock").write_bytes(OLD)
    (tmp_path / "link").symlink_to(".lock")
    before = listing(tmp_path)
    for name in (".lock", "link"):
        with pytest.raises(FileExistsError, match=f"{name}' is needed as the lock of 'run', but"):
            locked(tmp_path / name, "run").__enter__()
    assert listing(tmp_path) == before


def test_a_path_through_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "thesis.txt").write_bytes(OLD)
    before = listing(tmp_path)
    target = tmp_path / "thesis.txt/runs/m.tflite"
    with pytest.raises(FileExistsError, match=r"m\.tflite' cannot be written: .*thesis\.txt' is not a folder"):
        check_targets({target: kind_of(target)}, overwrite=True)
    with pytest.raises(FileExistsError, match=r"'run' cannot be written: .*thesis\.txt' is not a folder"):
        locked(tmp_path / "thesis.txt/.lock", "run").__enter__()
    assert listing(tmp_path) == before


# Killed at any moment.


class KilledError(BaseException):
    """What is raised in place of a kill; from then on every further step is refused, so that nothing is cleared."""


def in_a_copy(act):
    """Runs something in a copy of this process, because what watches its steps cannot be taken away again."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, none of which goes on in the child
        child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        failure = stream.read()
    os.waitpid(child, 0)
    assert not failure, failure


class Steps:
    """Counts the steps on the file system, and breaks off before one of them."""

    def __init__(self):
        self.left = math.inf
        sys.addaudithook(self.audit)

    def audit(self, name, arguments):
        if name.startswith(("os.", "shutil.", "ctypes.call")) or (name == "open" and arguments[1] != "r"):
            self.left -= 1
            if self.left <= 0:
                raise KilledError

    @contextlib.contextmanager
    def killing(self, step):
        self.left = step
        try:
            yield
        except KilledError:
            pass
        finally:
            self.left = math.inf


@pytest.mark.parametrize("overwrite", [True, False])
def test_killed_before_any_step_leaves_old_or_new_and_the_next_is_clean(write, system, overwrite, tmp_path):
    folder, is_split = tmp_path / "out", write is write_pair or not (system or write is write_one)
    write(tmp_path / "new", NEW, False)
    write(tmp_path / "old", OLD, False)
    new, old = listing(tmp_path / "new"), listing(tmp_path / "old") if overwrite else {}

    def kill_everywhere():
        os.fsync = lambda descriptor: None  # what a kill leaves does not depend on it
        steps, seen = Steps(), []
        while None not in seen:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "old", folder) if overwrite else folder.mkdir()
            seen.append(None)
            with steps.killing(len(seen)):
                write(folder, NEW, overwrite)
                break
            visible = {name: content for name, content in listing(folder).items() if not name.startswith(".")}
            seen[-1] = visible == new
            assert is_split or visible in (old, new)
            assert all(visible[name] in (old.get(name), new[name]) for name in visible)  # even of a pair, each is whole
            with contextlib.nullcontext() if overwrite or not visible else pytest.raises(FileExistsError):
                write(folder, NEW, overwrite)
            assert listing(folder) == new
        assert set(seen[:-1]) == {False, True}
        assert len(seen) > 10
        assert listing(folder) == new

    in_a_copy(kill_everywhere)


def test_a_killed_pair_is_finished_but_not_over_what_came_since(tmp_path, monkeypatch):
    put = writing._put

    def dying(place, *rest):
        if place.final.name == "m.json":
            os._exit(9)
        put(place, *rest)

    write_pair(tmp_path, OLD, False)
    monkeypatch.setattr(writing, "_put", dying)
    in_a_copy(lambda: write_pair(tmp_path, NEW, True))
    monkeypatch.undo()
    assert (tmp_path / "m.tflite").read_bytes() == NEW
    (tmp_path / "m.json").write_text('{"dtype": "somebody else\'s"}')
    with pytest.raises(FileExistsError, match="already exists"):
        write_pair(tmp_path, NEW, False)
    assert listing(tmp_path) == {"m.json": b'{"dtype": "somebody else\'s"}', "m.tflite": NEW}


def test_a_signature_follows_a_name_and_changes_with_the_content(tmp_path):
    assert signature(tmp_path / "a") is None
    (tmp_path / "a").write_text("a")
    first = signature(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert signature(tmp_path / "b") == first
    (tmp_path / "b").write_text("bb")
    assert signature(tmp_path / "b") != first


def test_kind_of_names_the_endings():
    with pytest.raises(ValueError, match=r"end in \.csv, .*received 'a.doc'"):
        kind_of("a.doc")
    assert table_of("file", "error").name == "a CSV table that begins with 'file', 'error'"
