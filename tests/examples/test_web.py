"""The web page in a real browser: it shows what the same file answers in Python."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

import se_keras
from se_keras import export
from se_keras.export.tflite_runtime import TFLiteRunner
from se_keras.native_output import native_output_held

pytestmark = pytest.mark.slow

WEB = pathlib.Path(__file__).parents[2] / "examples" / "web"
PHOTO = pathlib.Path(__file__).parents[1] / "goldens" / "photo.jpg"
LABELS = [f"kind {letter}" for letter in "abcdefghij"]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
    # WebGPU in software, so that no graphics card is needed.
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
)


def program(*names):
    """The path of the first of these programs that is installed; skips without one."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"{names[0]} is not installed")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The built page without a model."""
    node, npm = program("node"), program("npm")
    if not (WEB / "node_modules" / "@litertjs").is_dir():
        done = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=WEB, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"npm ci in examples/web failed, perhaps without a network: {done.stderr[-500:]}")
    folder = tmp_path_factory.mktemp("page")
    subprocess.run([node, WEB / "build.js", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def address(page):
    command = [sys.executable, WEB / "serve.py", "--directory", page, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        yield re.search(r"http://\S+", server.stdout.readline())[0]
        server.terminate()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(program("chromedriver")))
    yield driver
    driver.quit()


def decided_network():
    """SE-ResNet-20, its random classifier scaled up so that probabilities differ by far more than the tolerance."""
    model = se_keras.SEResNet20()
    classifier = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1]
    kernel, bias = classifier.get_weights()
    classifier.set_weights([kernel * 3, bias])
    return model


def save_exact_photo(path):
    """Writes a piece of a photo in the input's size; returns its pixels."""
    with Image.open(PHOTO) as opened:
        piece = opened.convert("RGB").crop((100, 100, 132, 132))
    piece.save(path)
    return np.asarray(piece)


def write_sidecar(folder, *, class_names=LABELS, dtype="float32"):
    pixels = {"height": 32, "width": 32, "dtype": dtype, "range": [0, 255], "crop_pct": 0.875}
    content = {"class_names": class_names, "input": {**pixels, "interpolation": "bicubic"}, "output": "probabilities"}
    (folder / "model.json").write_text(json.dumps(content))


def wait_for(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(condition)


def shown_answer(browser, photo):
    """Gives the page a photo; returns its five (label, probability), as they can be read."""
    browser.find_element("id", "file").send_keys(str(photo))
    status = wait_for(
        browser, lambda b: re.match(r"Most probably (.+) \([\d.]+%\)\.$", b.find_element("id", "status").text)
    )
    rows = browser.find_elements("css selector", "#answer li")
    texts = [[row.find_element("css selector", part).text for part in (".label", "data")] for row in rows]
    assert status[1] == texts[0][0]
    return [(label, float(percent.removesuffix("%")) / 100) for label, percent in texts]


def open_page(browser, address):
    """Loads the page and waits until its network is ready."""
    browser.get(address)
    wait_for(browser, lambda b: b.find_element("id", "file").is_enabled())


def check(answer, expected, labels=LABELS, tolerance=1e-3):
    assert 0.05 < np.ptp(expected) < 0.95, "too even or too sure to tell a right answer from a wrong one"
    assert [probability for _, probability in answer] == pytest.approx(sorted(expected)[:-6:-1], abs=tolerance)
    for label, probability in answer:
        assert probability == pytest.approx(expected[labels.index(label)], abs=tolerance)


def seen_by_network(browser):
    """The input that the page made of the photo, from its small picture of it."""
    script = """
        const canvas = document.getElementById("input");
        return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
    """
    return np.array(browser.execute_script(script)).reshape(32, 32, 4)[..., :3]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    return export.tflite(decided_network(), tmp_path_factory.mktemp("exported") / "model.tflite")


@pytest.fixture
def model(page, exported):
    """The page's own copy of the model, as a test may put another one in its place."""
    return pathlib.Path(shutil.copy(exported, page / "model.tflite"))


def test_photo_of_exact_size_gives_the_answer_of_python(browser, address, page, model, tmp_path):
    write_sidecar(page)
    image = save_exact_photo(tmp_path / "exact.png")
    open_page(browser, address)
    answer = shown_answer(browser, tmp_path / "exact.png")
    check(answer, TFLiteRunner(model)(image[None].astype("float32"))[0])
    assert re.fullmatch(r"[\d.]+ ms", browser.find_element("id", "latency").text)
    assert browser.find_element("id", "size").text == "32 \N{MULTIPLICATION SIGN} 32"
    assert browser.find_element("id", "classes").text == "10"
    assert "several threads" in browser.find_element("id", "wasm-note").text


def test_larger_photo_is_resized_and_cropped_as_in_python(browser, address, page, model, tmp_path):
    write_sidecar(page)
    photo = tmp_path / "photo.png"  # lossless, as another JPEG library decodes a JPEG a little differently
    with Image.open(PHOTO) as opened:
        opened.convert("RGB").crop((0, 0, 331, 250)).save(photo)
    expected = se_keras.preprocess(photo, se_keras.Preprocessing(size=32, crop=0.875, interpolation="bicubic"))
    open_page(browser, address)
    check(shown_answer(browser, photo), TFLiteRunner(page / "model.tflite")(expected)[0])
    assert np.abs(seen_by_network(browser) - expected[0]).max() <= 1


def test_photo_is_turned_upright(browser, address, page, model, tmp_path):
    write_sidecar(page)
    photo = tmp_path / "turned.jpg"
    orientation = Image.Exif()
    orientation[0x0112] = 6
    with Image.open(PHOTO) as opened:
        opened.convert("RGB").save(photo, quality=100, subsampling=0, exif=orientation)
    expected = se_keras.preprocess(photo, se_keras.Preprocessing(size=32, crop=0.875, interpolation="bicubic"))
    open_page(browser, address)
    shown_answer(browser, photo)
    assert np.abs(seen_by_network(browser) - expected[0]).max() <= 3  # two JPEG libraries


def test_gpu_gives_the_answer_of_python(browser, address, page, model, tmp_path):
    write_sidecar(page)
    image = save_exact_photo(tmp_path / "exact.png")
    open_page(browser, address)
    gpu = browser.find_element("css selector", "[value=webgpu]")
    if not gpu.is_enabled():
        pytest.skip("the browser offers no WebGPU")
    gpu.click()
    wait_for(browser, lambda b: b.find_element("id", "status").text == "Choose a photo, or use the camera.")
    assert gpu.is_selected()
    check(shown_answer(browser, tmp_path / "exact.png"), TFLiteRunner(model)(image[None].astype("float32"))[0])


def tiny_uint8_model():
    """A file whose input and output are uint8."""
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (20, 1, 32, 32, 3)).astype("float32")
    inputs = keras.Input((32, 32, 3), batch_size=1)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Flatten()(se_keras.SqueezeExcite(reduction=2)(x))
    outputs = keras.layers.Dense(10, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(0, 0.3))(
        x
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, outputs))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning")  # TensorFlow's, without meaning here
def test_uint8_model(browser, address, page, tmp_path):
    write_sidecar(page, dtype="uint8")
    with native_output_held():
        (page / "model.tflite").write_bytes(tiny_uint8_model())
    image = save_exact_photo(tmp_path / "exact.png")
    open_page(browser, address)
    answer = shown_answer(browser, tmp_path / "exact.png")
    expected = TFLiteRunner(page / "model.tflite")(image[None].astype("float32"))[0]
    check(answer, expected, tolerance=1.5 / 256)  # one step of the output: kernels of two processors may round apart


def test_page_works_without_side_car(browser, address, page, model, tmp_path):
    (page / "model.json").unlink(missing_ok=True)
    image = save_exact_photo(tmp_path / "exact.png")
    open_page(browser, address)
    answer = shown_answer(browser, tmp_path / "exact.png")
    expected = TFLiteRunner(page / "model.tflite")(image[None].astype("float32"))[0]
    check(answer, expected, [f"Class {i}" for i in range(10)])


def test_unknown_range_of_pixels_is_an_error(browser, address, page, model):
    write_sidecar(page)
    beside = page / "model.json"
    content = json.loads(beside.read_text("utf-8"))
    content["input"]["range"] = None
    beside.write_text(json.dumps(content))
    browser.get(address)
    wait_for(browser, lambda b: "does not state the range of the pixels" in b.find_element("id", "status").text)


def test_file_that_is_no_image_is_named(browser, address, page, model, tmp_path):
    write_sidecar(page)
    (tmp_path / "notes.txt").write_text("no image")
    open_page(browser, address)
    browser.find_element("id", "file").send_keys(str(tmp_path / "notes.txt"))
    wait_for(browser, lambda b: "“notes.txt” cannot be read as an image" in b.find_element("id", "status").text)


def test_side_car_of_another_model_is_refused(browser, address, page, model):
    write_sidecar(page, class_names=LABELS[:3])
    browser.get(address)
    wait_for(browser, lambda b: "names 3 classes, and model.tflite has 10" in b.find_element("id", "status").text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no model.tflite next to this page"),
        (b"<html>not found</html>", "is not a TFLite model, or is damaged"),
        (b"\x1c\0\0\0TFL3 and nothing that belongs to it", "cannot load model.tflite, which may be damaged"),
    ],
)
def test_missing_or_damaged_model_is_explained(browser, address, page, model, content, message):
    write_sidecar(page)
    model.unlink()
    if content:
        model.write_bytes(content)
    browser.get(address)
    wait_for(browser, lambda b: message in b.find_element("id", "status").text)
    assert not browser.find_element("id", "file").is_enabled()
