"""Prediction in bulk: the same answers as one by one, whatever lies in the folder, however often it is stopped."""

import contextlib
import csv
import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from cases import ALL
from PIL import Image
from small_networks import shortened

import se_keras
import se_keras_cli
from se_keras.images import reading
from se_keras.images.folders import image_files
from se_keras.inference import classify
from se_keras.prediction import folder as prediction
from se_keras.prediction import predict_folder
from se_keras.prediction.fingerprint import fingerprint
from se_keras.prediction.job import Job, Settings, opened
from se_keras.prediction.merge import output_targets
from se_keras.progress import shown_by

LABELS = ["ant", "bee", "cat"]
NAMES = [f"{index:02}.png" for index in range(20)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return shortened("se_resnet20", classes=3)


@pytest.fixture
def photos(tmp_path):
    return folder_of(tmp_path / "photos", NAMES)


def folder_of(path, names):
    path.mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), "uint8")).save(path / name)
    return path


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def predict(model, photos, output, **options):
    return predict_folder(model, photos, output, **{"class_names": LABELS, "batch_size": 4, "part_size": 4, **options})


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_answers_are_those_of_classify(model, photos, tmp_path, ending):
    output = tmp_path / f"labels{ending}"
    done = predict(model, photos, output, top=2)
    if ending == ".csv":
        rows = rows_of(output)
    else:
        rows = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow").read_table(output).to_pylist()
    assert (done.classified, done.broken, done.broken_list, done.resumed, done.added) == (20, 0, None, 0, 0)
    assert [row["file"] for row in rows] == NAMES
    assert list(rows[0]) == ["file", "id_1", "label_1", "probability_1", "id_2", "label_2", "probability_2"]
    expected = classify(model, [photos / name for name in NAMES], class_names=LABELS, top=2)
    for row, ((first, label, probability), (_, second_label, _)) in zip(rows, expected, strict=True):
        assert (row["id_1"], row["label_1"], row["label_2"]) == (first, label, second_label)
        assert float(row["probability_1"]) == pytest.approx(probability, rel=1e-4)
    assert names_in(tmp_path) == sorted(["photos", output.name])


def test_broken_files_are_listed_and_skipped(model, photos, tmp_path):
    (photos / "05.png").write_bytes(b"")
    (photos / "06.png").write_bytes((photos / "07.png").read_bytes()[:200])
    (photos / "text.jpg").write_text("no image")
    for name in ("notes.txt", ".hidden.png"):
        (photos / name).write_text("not looked at")
    done = predict(model, photos, tmp_path / "labels.csv")
    broken = rows_of(done.broken_list)
    assert (done.classified, done.broken) == (18, 3)
    assert [row["file"] for row in broken] == ["05.png", "06.png", "text.jpg"]
    assert "0 bytes" in broken[0]["error"]
    assert {row["file"] for row in rows_of(done.output)} == set(NAMES) - {"05.png", "06.png"}


def test_a_folder_of_broken_files_alone(model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_text("no image")
    done = predict(model, folder, tmp_path / "labels.csv")
    assert (done.classified, done.broken) == (0, 1)
    assert rows_of(done.output) == []


def test_an_old_list_of_broken_files_goes_with_the_old_output(model, photos, tmp_path):
    (photos / "05.png").write_bytes(b"")
    listed = predict(model, photos, tmp_path / "labels.csv").broken_list
    (photos / "05.png").unlink()
    assert predict(model, photos, tmp_path / "labels.csv", overwrite=True).broken_list is None
    assert rows_of(listed) == []


@pytest.mark.parametrize("page", ["getting-started", "images-to-train-on"])
def test_documents_name_the_list_of_broken_files(page):
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    text = (pathlib.Path(__file__).parent.parent / "docs" / f"{page}.md").read_text("utf-8")
    for table in ("labels.parquet", "labels.csv"):
        assert f"`{list(output_targets(pathlib.Path(table)))[1]}`" in text


def test_answers_that_are_not_finite_are_listed(model, photos, tmp_path):
    sick = keras.models.clone_model(model)
    sick.set_weights([np.full(weight.shape, np.nan) for weight in model.weights])
    done = predict(sick, photos, tmp_path / "labels.csv")
    assert (done.classified, done.broken) == (0, 20)
    assert "not finite" in rows_of(done.broken_list)[0]["error"]


def test_files_are_found_in_subfolders_and_in_order(tmp_path):
    folder = folder_of(tmp_path / "photos", ["b.png", "a.jpg"])
    folder_of(folder / "sub", ["Ä b.JPG", "a,\nb.png"])
    folder_of(folder / ".hidden", ["c.png"])
    (folder / "notes.txt").write_text("")
    assert list(image_files(folder)) == ["a.jpg", "b.png", "sub/a,\nb.png", "sub/Ä b.JPG"]


def test_odd_names_survive(model, tmp_path):
    folder = folder_of(tmp_path / "photos", ["a,\nb.png", 'q".png', "Ä.png"])
    with open(os.path.join(os.fsencode(folder), b"\xff.png"), "wb") as stream:
        stream.write((folder / "Ä.png").read_bytes())
    done = predict(model, folder, tmp_path / "labels.csv")
    expected = sorted(["a,\nb.png", 'q".png', "Ä.png", r"\xff.png"])
    assert sorted(row["file"] for row in rows_of(done.output)) == expected


class StopError(Exception):
    pass


def after_each(action):
    """Calls `action` with the number of files looked at, and of all files of this call."""

    @contextlib.contextmanager
    def display(title, total):
        def advance():
            nonlocal done
            done += 1
            action(done, total)

        done = -1
        if title == "Classifying":
            advance()
        yield advance

    return shown_by(display)


@pytest.mark.parametrize("stop", [0, 3, 4, 11, 20])
def test_resumes_with_the_same_result(model, photos, tmp_path, stop, monkeypatch):
    (photos / "05.png").write_bytes(b"")
    whole = predict(model, photos, tmp_path / "whole.csv").output.read_bytes()

    def stopping(files, total):
        assert total == 20
        if files == stop:
            raise StopError

    output = tmp_path / "labels.csv"
    with pytest.raises(StopError), after_each(stopping):
        predict(model, photos, output)
    assert not output.exists()
    (tmp_path / "labels.csv.parts" / "part-00000004.jsonl.partial").write_text('{"file": "16.p')
    seen = []
    with after_each(lambda files, total: seen.append(files)):
        done = predict(model, photos, output)
    # A part is stored when its last file has been reported.
    assert done.resumed == max(stop - 1, 0) // 4 * 4
    assert seen == list(range(21 - done.resumed))
    assert output.read_bytes() == whole
    assert names_in(tmp_path) == ["labels.broken.csv", "labels.csv", "photos", "whole.broken.csv", "whole.csv"]


@pytest.fixture
def unfinished(model, photos, tmp_path):
    """An output whose prediction was stopped after eight files."""

    def stopping(files, total):
        if files == 9:
            raise StopError

    with pytest.raises(StopError), after_each(stopping):
        predict(model, photos, tmp_path / "labels.csv")
    return tmp_path / "labels.csv"


PART_FAULTS = {
    "empty": lambda lines: "",
    "without rows": lambda lines: lines[0],
    "cut at the end of a line": lambda lines: "".join(lines[:-1]),
    "cut in a line": lambda lines: "".join(lines)[:-9],
    "a row twice": lambda lines: "".join([*lines, lines[-1]]),
    "a changed row": lambda lines: "".join(lines).replace("ant", "bee").replace("cat", "bee"),
    "no text": lambda lines: "\0" * 900,
}


@pytest.mark.parametrize("fault", PART_FAULTS)
def test_a_damaged_part_is_computed_again(model, photos, unfinished, fault):
    whole = predict(model, photos, unfinished.with_name("whole.csv")).output.read_bytes()
    part = unfinished.with_name("labels.csv.parts") / "part-00000001.jsonl"
    damaged = PART_FAULTS[fault](part.read_text().splitlines(keepends=True))
    assert damaged != part.read_text()
    part.write_text(damaged)
    done = predict(model, photos, unfinished)
    assert (done.resumed, done.classified) == (4, 20)
    assert unfinished.read_bytes() == whole


def test_a_part_of_other_files_is_refused_and_named(model, photos, unfinished):
    parts = unfinished.with_name("labels.csv.parts")
    shutil.copy(parts / "part-00000000.jsonl", parts / "part-00000001.jsonl")
    with pytest.raises(ValueError, match=r"part-00000001.jsonl' is damaged. Remove it, and run the same call again"):
        predict(model, photos, unfinished)
    assert not unfinished.exists()
    (parts / "part-00000001.jsonl").unlink()
    assert predict(model, photos, unfinished).classified == 20


def test_a_damaged_manifest_or_list_of_files_is_one_line(model, photos, unfinished):
    parts = unfinished.with_name("labels.csv.parts")
    manifest = (parts / "manifest.json").read_text()
    for content in ("", "{", "[]", '{"folder": 1}', "\xff"):
        (parts / "manifest.json").write_text(content, "latin-1")
        with pytest.raises(
            ValueError, match=r"manifest.json' is damaged. Remove the folder '.*parts' to start again"
        ) as caught:
            predict(model, photos, unfinished)
        assert "\n" not in str(caught.value)
    (parts / "manifest.json").write_text(manifest)
    (parts / "files.jsonl").write_text("{")
    (photos / "19.png").rename(photos / "20.png")
    with pytest.raises(ValueError, match=r"files.jsonl' is damaged. Remove the folder"):
        predict(model, photos, unfinished)
    (photos / "20.png").rename(photos / "19.png")  # the same images: the list can be made anew
    assert predict(model, photos, unfinished).resumed == 8


def test_a_part_with_too_few_answers_is_not_stored(model, photos, unfinished):
    manifest = json.loads((unfinished.with_name("labels.csv.parts") / "manifest.json").read_text())
    settings = Settings(**{name: value for name, value in manifest.items() if not name.startswith("files")})
    with opened(unfinished.with_name("labels.csv.parts"), settings, lambda: None) as job:
        with pytest.raises(RuntimeError, match=r"Part 2 of '.*' has 4 files, but 1 results"):
            job.write(2, "{}\n")
        assert job.done() == {0, 1}


def test_an_end_between_the_output_and_the_removal_of_the_job(model, photos, tmp_path, monkeypatch):
    (photos / "05.png").write_bytes(b"")
    output = tmp_path / "labels.csv"

    def stopping(job):
        raise StopError

    for left in ("nothing removed", "all but the result removed"):
        with monkeypatch.context() as patched:
            patched.setattr(Job, "remove", stopping)
            with pytest.raises(StopError):
                predict(model, photos, output, overwrite=True)
        parts = tmp_path / "labels.csv.parts"
        for name in set(names_in(parts)) - {"result.json"} if left.startswith("all") else ():
            (parts / name).unlink()
        before = output.read_bytes()
        done = predict(model, photos, output)
        assert (done.classified, done.broken, done.broken_list.name) == (19, 1, "labels.broken.csv")
        assert output.read_bytes() == before
        assert names_in(tmp_path) == ["labels.broken.csv", "labels.csv", "photos"]
    with pytest.raises(FileExistsError, match=r"labels.csv' already exists"):
        predict(model, photos, output)


def test_lists_of_broken_files_are_not_shared_and_not_replaced_unasked(model, photos, tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    mine = tmp_path / "labels.broken.csv"
    mine.write_text("precious,list\n")
    for overwrite in (False, True):
        with pytest.raises(
            FileExistsError, match=r"labels.broken.csv' is a file of .*'file', 'error' can be replaced there"
        ):
            predict(model, photos, tmp_path / "labels.csv", overwrite=overwrite)
    assert names_in(tmp_path) == ["labels.broken.csv", "photos"]
    (photos / "05.png").write_bytes(b"")
    done = predict(model, photos, tmp_path / "labels.parquet")
    assert done.broken_list == tmp_path / "labels.parquet.broken.csv"
    assert mine.read_text() == "precious,list\n"
    mine.write_text("file,error\nold.png,broken\n")
    with pytest.raises(FileExistsError, match=r"labels.broken.csv' already exists"):
        predict(model, photos, tmp_path / "labels.csv")
    assert [row["file"] for row in rows_of(mine)] == ["old.png"]


def test_resuming_with_another_model_or_setting_is_refused(model, photos, unfinished):
    other = keras.models.clone_model(model)
    other.set_weights([weight + 1 for weight in model.get_weights()])
    with pytest.raises(ValueError, match=r"fingerprint: \w{12}... then, \w{12}... now\nResume"):
        predict(other, photos, unfinished)
    with pytest.raises(ValueError, match=r"class_names: .*\n  top: 3 then, 1 now\n"):
        predict(model, photos, unfinished, top=1, class_names=["x", "y", "z"])
    assert predict(model, photos, unfinished).resumed == 8


def test_resuming_with_another_folder_is_refused(model, photos, unfinished, tmp_path):
    other = shutil.copytree(photos, tmp_path / "others")
    with pytest.raises(ValueError, match=r"folder: '.*photos' then, '.*others' now"):
        predict(model, other, unfinished)
    for name in NAMES[12:]:
        (photos / name).rename(tmp_path / name)
    with pytest.raises(ValueError, match=r"files: 8 of 20 are gone: '12\.png', .* and 3 more"):
        predict(model, photos, unfinished)


def test_images_that_came_later_are_left_out(model, photos, unfinished):
    shutil.copy(photos / "00.png", photos / "00a.png")
    done = predict(model, photos, unfinished)
    assert done.added == 1
    assert [row["file"] for row in rows_of(done.output)] == NAMES


def test_a_folder_that_vanishes_is_no_list_of_broken_files(model, photos, tmp_path):
    def vanishing(files, total):
        if files == 1:
            photos.rename(tmp_path / "elsewhere")

    with pytest.raises(FileNotFoundError, match="cannot be found on"), after_each(vanishing):
        predict(model, photos, tmp_path / "labels.csv")
    (tmp_path / "elsewhere").rename(photos)
    assert predict(model, photos, tmp_path / "labels.csv").classified == 20


def test_two_processes_do_not_share_an_output(model, photos, unfinished):
    settings = Settings(
        **{
            name: value
            for name, value in json.loads(
                (unfinished.parent / "labels.csv.parts" / "manifest.json").read_text()
            ).items()
            if not name.startswith("files")
        }
    )
    with (
        opened(unfinished.parent / "labels.csv.parts", settings, lambda: None),
        pytest.raises(RuntimeError, match="Another process is at work"),
    ):
        predict(model, photos, unfinished)
    assert predict(model, photos, unfinished).classified == 20


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"output": "labels.txt"}, ValueError, "a .parquet or .csv file"),
        ({"output": "."}, ValueError, "a .parquet or .csv file"),
        ({"folder": "nowhere"}, FileNotFoundError, "no folder of images at 'nowhere'"),
        ({"class_names": None}, ValueError, "3 classes of its own, not ImageNet's 1,000. Pass"),
        ({"class_names": ["a", "b"]}, ValueError, "each of the 3 classes; received 2"),
        ({"top": 0}, ValueError, "`top`"),
        ({"batch_size": 0}, ValueError, "`batch_size`"),
        ({"engine": "rai"}, ValueError, "Did you mean 'ray'"),
        ({"workers": 2}, ValueError, "require engine='ray'"),
    ],
)
def test_faults_are_named_before_anything_is_written(model, photos, tmp_path, options, error, reason, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"folder": photos, "output": "labels.csv", "class_names": LABELS, **options}
    with pytest.raises(error, match=reason):
        predict_folder(model, **options)
    assert names_in(tmp_path) == ["photos"]


def test_an_empty_folder_is_refused(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match="has no image files"):
        predict(model, tmp_path / "photos", tmp_path / "labels.csv")
    assert names_in(tmp_path) == ["photos"]


def test_an_output_that_appears_before_the_work_is_kept_and_no_work_is_left(model, photos, tmp_path, monkeypatch):
    output = tmp_path / "labels.csv"

    def after_another_call(model):
        monkeypatch.undo()
        predict(model, photos, output)
        return fingerprint(model)

    monkeypatch.setattr(prediction, "fingerprint", after_another_call)
    with pytest.raises(FileExistsError, match=r"labels.csv' already exists"):
        predict(model, photos, output)
    assert len(rows_of(output)) == len(NAMES)
    assert names_in(tmp_path) == ["labels.csv", "photos"]


def test_what_is_wrong_with_a_file_is_no_failure_of_the_system():
    for error in (ValueError(), FileNotFoundError(errno.ENOENT, ""), OSError("truncated"), OSError(errno.EINVAL, "")):
        assert not reading.is_system_failure(error)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_what_the_system_lacks_makes_no_image_broken(model, photos, tmp_path, monkeypatch, error):
    opened = Image.open

    def fail_at_the_last(file, **options):
        if os.fspath(file).endswith(sorted(NAMES)[-1]):
            raise error
        return opened(file, **options)

    monkeypatch.setattr(reading.Image, "open", fail_at_the_last)
    with pytest.raises(type(error), match=f"Too many open files.*{sorted(NAMES)[-1]}" if error.args else None):
        predict(model, photos, tmp_path / "labels.csv")
    monkeypatch.setattr(reading.Image, "open", opened)
    done = predict(model, photos, tmp_path / "labels.csv")
    assert (done.classified, done.broken) == (20, 0)


def test_what_exists_is_kept(model, photos, tmp_path):
    output = tmp_path / "labels.csv"
    for content, reason in (
        ("file,id_1,label_1,probability_1\n", "overwrite=True"),
        ("file,mine\n", "can be replaced there"),
    ):
        output.write_text(content)
        with pytest.raises(FileExistsError, match=reason):
            predict(model, photos, output)
        assert output.read_text() == content
    with pytest.raises(FileExistsError, match="Choose another path"):
        predict(model, photos, output, overwrite=True)
    output.write_text("")
    assert predict(model, photos, output, overwrite=True).classified == 20
    assert predict(model, photos, output, overwrite=True).classified == 20
    folder = tmp_path / "other.csv.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="has other content"):
        predict(model, photos, tmp_path / "other.csv")
    assert names_in(folder) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [("pyarrow", {}, "parquet"), ("ray", {"engine": "ray", "output": "labels.csv"}, "ray")],
)
def test_missing_packages_are_named_before_the_work(model, photos, tmp_path, package, options, extra, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"se_keras\[{extra}\]"):
        predict(model, photos, **{"output": "labels.parquet", **options})
    assert names_in(tmp_path) == ["photos"]
    if package == "pyarrow":
        assert predict(model, photos, "labels.csv").classified == 20


def test_fingerprint_follows_structure_and_weights(model, tmp_path):
    model.save(tmp_path / "model.keras")
    assert fingerprint(keras.models.load_model(tmp_path / "model.keras")) == fingerprint(model)
    for state in ("compiled", "frozen"):
        other = keras.models.load_model(tmp_path / "model.keras")
        if state == "compiled":
            other.compile("adam", "categorical_crossentropy")
        else:
            other.trainable = False
        assert fingerprint(other) == fingerprint(model), state
    changed = keras.models.clone_model(model)
    weights = model.get_weights()
    changed.set_weights(weights)
    same = fingerprint(changed)
    weights[-1] = weights[-1] + 1e-6
    changed.set_weights(weights)
    assert fingerprint(changed) != same == fingerprint(model)
    other = shortened("se_resnet20", classes=3, se=se_keras.SEConfig(squeeze="max"))
    other.set_weights(model.get_weights())
    assert fingerprint(other) != fingerprint(model)


# The command.


@pytest.fixture
def arguments(model, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model.save("model.keras")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    return [
        "predict",
        "--model",
        "model.keras",
        "--class-names",
        "labels.txt",
        "--input",
        "photos",
        "--output",
        "out.csv",
    ]


def test_command_writes_and_sums_up(capsys, arguments, photos):
    (photos / "05.png").write_bytes(b"")
    assert se_keras_cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "images classified: 19" in out
    assert "files not classified: 1, listed with the reasons in out.broken.csv" in out
    assert len(rows_of("out.csv")) == 19
    assert se_keras_cli.main(arguments) == 1
    assert "add --overwrite" in capsys.readouterr().err
    assert se_keras_cli.main([*arguments, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["broken"] == 1


def test_interrupted_command_says_where_it_goes_on(capsys, arguments, monkeypatch):
    def interrupted(model, question, job, done, advance):
        for _ in range(7):
            advance()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prediction, "classify_here", interrupted)
        assert se_keras_cli.main(arguments) == 130
    assert "interrupted after 7 of 20 images" in capsys.readouterr().err
    assert se_keras_cli.main(arguments) == 0


def test_command_fails_when_no_file_can_be_read(capsys, arguments, photos):
    for path in photos.iterdir():
        path.write_bytes(b"")
    assert se_keras_cli.main(arguments) == 1
    assert "files not classified: 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "reason"),
    [(["photo.png", "--overwrite"], "--overwrite is for all images"), (["--input", "photos"], "needs --output")],
)
def test_command_says_what_does_not_fit(capsys, more, reason):
    assert se_keras_cli.main(["predict", "--model", "model.keras", *more]) == 1
    assert reason in capsys.readouterr().err


def command(arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "se_keras_cli", *arguments], text=True, **options)


def wait_for(condition, process, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)


@pytest.fixture
def many(arguments, photos, tmp_path):
    """The command for a folder of 3,000 links to the photos."""
    for index in range(3000):
        (photos / f"link{index:04}.png").symlink_to(photos / NAMES[index % 20])
    return arguments


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_and_nothing_twice(many, tmp_path):
    parts = tmp_path / "out.csv.parts"
    kills = 0
    for goal in (0, 1, 4, 8):  # while files are listed, before the first part is stored, and in between
        process = command(many, stderr=subprocess.DEVNULL)
        wait_for(lambda: parts.exists() and len(list(parts.glob("part-*"))) >= goal, process)  # noqa: B023
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills == 4
    assert not (tmp_path / "out.csv").exists()
    process = command(many, stdout=subprocess.PIPE)
    assert "resumed at" in process.communicate()[0]
    assert process.returncode == 0
    result = (tmp_path / "out.csv").read_bytes()
    assert [row["file"] for row in rows_of("out.csv")] == sorted(names_in(tmp_path / "photos"))
    assert command([*many, "--overwrite"], stdout=subprocess.DEVNULL).wait() == 0
    assert (tmp_path / "out.csv").read_bytes() == result


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_resumes(many, photos, tmp_path):
    large = photos / "link1000.png"  # and all after it: they take half a minute, so that the signal is in time
    large.unlink()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 600, 3), "uint8")).save(large)
    for index in range(1001, 3000):
        (photos / f"link{index:04}.png").unlink()
        (photos / f"link{index:04}.png").symlink_to(large)
    parts = tmp_path / "out.csv.parts"
    process = command(many, stderr=subprocess.PIPE)
    wait_for(lambda: (parts / "part-00000000.jsonl").exists(), process)
    process.send_signal(signal.SIGINT)
    err = process.communicate()[1]
    assert process.returncode == 130
    assert "of 3,020 images; run the same command again to resume" in err
    assert "Traceback" not in err
    shutil.copy(photos / NAMES[0], large)
    process = command(many, stdout=subprocess.PIPE)
    assert "images classified: 3,020" in process.communicate()[0]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(many, run_python, photos, tmp_path):
    code = """
        import os, resource
        import keras, se_keras
        from se_keras.prediction import predict_folder
        model = keras.models.load_model("model.keras", compile=False)
        photos = os.environ["PHOTOS"]
        rest = predict_folder(model, photos, photos + ".csv", class_names=["a", "b", "c"], verbose=0)
        print(rest.classified, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    few = folder_of(tmp_path / "few", NAMES)
    for index in range(280):
        (few / f"link{index:04}.png").symlink_to(few / NAMES[index % 20])
    count, small = map(int, run_python(code, PHOTOS=str(few)).split())
    assert count == 300
    count, large = map(int, run_python(code, PHOTOS=str(photos)).split())
    assert count == 3020
    assert large - small < 40_000  # kB; the decoded images alone would be 33 MB, their files' names 0.2


# On a cluster, in processes of their own: Ray keeps threads and warns about much.

LOSING_A_MACHINE = """
    import contextlib, itertools
    import keras, ray, se_keras
    from ray.cluster_utils import Cluster
    from se_keras.prediction import predict_folder
    from se_keras.progress import shown_by

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")  # to the head: no other is there yet
    workers = [machines.add_node(num_cpus=1) for _ in range(2)]
    killed = []

    @contextlib.contextmanager
    def display(title, total):
        files = itertools.count(1)

        def kill_one():
            if title == "Classifying" and next(files) >= 60 and not killed:
                machines.remove_node(workers[1], allow_graceful=False)
                killed.append(True)

        yield kill_one

    model = keras.models.load_model("model.keras", compile=False)
    options = dict(class_names=["ant", "bee", "cat"], batch_size=4, part_size=4, engine="ray")
    with shown_by(display):
        done = predict_folder(model, "photos", "out.csv", **options)
    print(done.classified, len(killed))
    ray.shutdown()
    machines.shutdown()
"""


@pytest.mark.skipif(not ALL, reason="make test-all does this")
@pytest.mark.slow
def test_ray_gives_the_same_answers(arguments, run_python, model, photos, tmp_path, capsys):
    pytest.importorskip("ray", reason="needs ray[data]")
    (photos / "05.png").write_bytes(b"")
    predict(model, photos, tmp_path / "local.csv", batch_size=32, part_size=256)
    process = command([*arguments, "--engine", "ray"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "images classified: 19" in out
    assert err.splitlines()[1:] == [], "Ray's own messages are held back"
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()


@pytest.mark.slow
def test_ray_loses_a_machine_but_no_image(arguments, run_python, model, photos, tmp_path):
    pytest.importorskip("ray", reason="needs ray[data]")
    for index in range(280):
        (photos / f"link{index:04}.png").symlink_to(photos / NAMES[index % 20])
    printed = run_python(LOSING_A_MACHINE, RAY_raylet_start_wait_time_s="240")  # on a busy machine
    assert printed.split()[-2:] == ["300", "1"]
    predict(model, photos, tmp_path / "local.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
