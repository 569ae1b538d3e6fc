"""Two real processes with the same command at the same time: one does it, the other says why not, and all is whole."""

import json
import pathlib
import subprocess
import sys
import textwrap

import pytest

RACES = """
    import json, os, pathlib, pickle, sys, tempfile
    sys.path.insert(0, sys.argv[1])
    import kill_at_random as kills
    from kill_at_random import CONVERT, PREDICT, TRAIN, cli, export, keras

    def exporting(write, path):
        def run():
            try:
                write(keras.models.load_model("model.keras", compile=False), path)
            except (RuntimeError, FileExistsError) as error:
                print(type(error).__name__, error, flush=True)
                return 1
            return 0
        return run

    plainly = [argument for argument in CONVERT if argument != "--overwrite"]
    commands = {
        "train": (cli(*TRAIN), None),
        "resume": (cli("train", "--resume", "run"), cli(*TRAIN)),
        "predict": (cli(*PREDICT, "--output", "answers.csv"), None),
        "saved_model": (exporting(kills.export.saved_model, "saved"), None),
        "tflite": (exporting(kills.export.tflite, "m.tflite"), None),
        "onnx": (exporting(kills.export.onnx, "m.onnx"), None),
        "openvino": (exporting(kills.export.openvino, "m.xml"), None),
        "convert": (cli(*plainly, "--to", "c.keras"), None),
        "insert": (cli("insert", "plain.keras", "--to", "se.keras"), None),
    }
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        killing = kills.Killing(pathlib.Path(folder))
        for name, (command, before) in commands.items():
            ends = []
            for count in (1, 2):
                work = killing._copy("new")
                work.with_suffix(".log").unlink(missing_ok=True)
                if before:
                    kills.killed(before, work, 0.7 * killing.reference("train", "new").seconds)
                    if not (work / "run/run.json").exists():
                        raise RuntimeError("killed too early")
                copies = [kills.in_copy(command, work) for _ in range(count)]
                codes = []
                for child, reader in copies:
                    with os.fdopen(reader, "rb") as stream:
                        codes.append(pickle.loads(stream.read()))
                    os.waitpid(child, 0)
                ends.append(kills.result_of(lambda: kills.listing(work), work))
            log = work.with_suffix(".log").read_text()[-2000:]
            found[name] = {"codes": codes, "whole": ends[0] == ends[1], "log": log}
    print("FOUND", json.dumps(found))
"""


@pytest.mark.slow
def test_one_of_two_does_it_and_the_other_says_why_not(tmp_path):
    pytest.importorskip("tf2onnx", reason="needs tf2onnx")
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    pytest.importorskip("openvino", reason="needs OpenVINO")
    command = [sys.executable, "-c", textwrap.dedent(RACES), pathlib.Path(__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    for name, race in found.items():
        assert sorted(map(str, race["codes"])) == ["0", "1"], (name, race)
        assert any(
            reason in race["log"]
            for reason in ("Another process is at work on", "already exists", "already holds a run")
        ), (name, race)
        assert race["whole"], (name, race)
