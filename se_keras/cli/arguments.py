"""The arguments of every command, as tables. Nothing here imports Keras, so help and usage errors appear at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from se_keras.cli.values import amount, count, fraction, natural, percentage, positive


class Argument(NamedTuple):
    """The name of an argument, and the keyword arguments of `add_argument` for it."""

    name: str
    settings: dict[str, Any]


class OneOf(NamedTuple):
    """Arguments of which exactly one must be given."""

    arguments: list[Argument]


class Group(NamedTuple):
    """Arguments that the help shows together, under a title and a description."""

    title: str
    description: str
    arguments: list[Argument]


Entry = Argument | OneOf | Group


class Command(NamedTuple):
    """A command: one lowercase line for the help, an example, and the arguments in the order of the help."""

    summary: str
    example: str
    arguments: Sequence[Entry]


def _option(name: str, help: str, type: Callable[[str], Any] | None = None, **settings: Any) -> Argument:
    """Returns an argument with a value; the help states a default that is a string or a number."""
    default = settings.get("default")
    shown = f" (default: {default})" if default and not isinstance(default, list) else ""
    return Argument(name, {"help": (help + shown).strip(), "type": type, **settings})


def _switch(name: str, help: str, **settings: Any) -> Argument:
    return Argument(name, {"help": help, "action": "store_true", **settings})


_DATA = _option("--data", "as in `se-keras train`", required=True)
_SIZE = _option("--size", "height and width of the input in pixels", count)
_OVERWRITE = _switch("--overwrite", "replace an existing file")
_STRICT = _switch("--strict", "fail on unreadable files")

_HELD_BACK = [
    _option("--split", "", choices=("validation", "train"), default="validation"),
    _option(
        "--validation-split",
        "fraction to hold back if there is no validation part (default: from run.json next to the model, else 0.2)",
        fraction,
    ),
]
_VERDICT = [
    _option("--report", "folder for report.json and report.md"),
    _option(
        "--target",
        "target that must accept the file; may be repeated",
        choices=("cpu", "gpu", "edgetpu", "serving"),
        action="append",
        default=[],
    ),
    _switch("--layers", "measure the quantization error of each operation of an int8 or int16x8 .tflite file"),
    _option("--threads", "CPU threads for timing", count, default=1),
    _option("--images", "maximum number of photos", count, default=256),
    _switch("--strict", "fail on unreadable photos"),
    _option("--max-relative-error", "largest relative error of the logits (default: by dtype)", fraction),
    _option("--min-top1-agreement", "minimum fraction of photos with the same top class (default: by dtype)", fraction),
    _option(
        "--max-squared-error",
        "largest relative squared error of outputs other than probabilities of classes (default: by dtype)",
        fraction,
    ),
    _option("--max-accuracy-drop", "largest drop in accuracy, as a fraction of 1 (default: by dtype)", fraction),
]

SHARED = [
    _switch("--verbose", "show the framework's own messages and error traces"),
    _switch("--json", "print JSON instead of a table"),
]
"""The arguments of every command."""

LOADING = _option(
    "--import",
    "Python module with your own layers that a .keras file contains; may be repeated",
    dest="imports",
    metavar="MODULE",
    action="append",
    default=[],
)
"""The arguments of every command that loads the user's own models."""

_LIST = [
    _option("pattern", "shell-style filter, such as 'se_resnet*'", nargs="?", default="*"),
    _switch("--weights", "list the published weights"),
    _option("--max-params", "maximum number of parameters, such as 6M", amount, metavar="COUNT"),
    _option("--max-macs", "maximum number of multiply-adds per image, such as 500M", amount, metavar="COUNT"),
    _option("--min-accuracy", "minimum top-1 on ImageNet in percent, such as 75", percentage, metavar="PERCENT"),
    _option("--license", "commercial (every license that does not forbid it), or a license's name", metavar="NAME"),
    _option(
        "--sort",
        "accuracy: best first; parameters, macs, size of the input: smallest first (default: parameters with one of "
        "the limits above, else name)",
        choices=("name", "accuracy", "parameters", "macs", "size"),
    ),
]
_INFO = [
    LOADING,
    _option("model", "a network's name, published weights (model.tag), a .keras file, or an exported file"),
    _SIZE,
    _switch("--plain", "show the same network without SE"),
]
_FOLDER_TO_PREDICT = [
    _option("--output", "the table to write: .parquet or .csv", metavar="FILE"),
    _option("--batch-size", "images per batch", count, default=32),
    _switch("--overwrite", "replace an existing output"),
    _option("--engine", "this process (the default), or a Ray cluster (see RAY_ADDRESS)", choices=("local", "ray")),
    _option("--workers", "maximum number of tasks on the cluster (default: one per CPU)", count),
    _option("--gpus-per-worker", "GPUs per task, or a fraction of one (default: none)", positive),
]
_IMAGES = [
    _option("images", "image files", nargs="*", default=[]),
    _option("--input", "a folder with any number of images, including subfolders", metavar="FOLDER"),
]
_PREDICT: list[Entry] = [
    LOADING,
    OneOf(_IMAGES),
    _option("--model", "a .keras file, or a published checkpoint (model.tag)", required=True),
    _option(
        "--class-names",
        "text file, one name per line, in the order of the outputs (default: the model's own, else labels.txt next to "
        "it, else ImageNet's)",
    ),
    _option("--top", "number of classes per image", count, default=5),
    Group(
        "with --input",
        "Unreadable files are listed next to the output.\nAfter an interruption, the same command continues.",
        _FOLDER_TO_PREDICT,
    ),
]
_CONVERT = [
    _option("checkpoint", "published weights (model.tag), or a file"),
    _option("--to", "file to write: .keras, .weights.h5, or .safetensors", required=True),
    _option("--model", "the network that a file belongs to (see `se-keras list`)"),
    _OVERWRITE,
]
_RESULT = [
    _option("--recipe", "name of a recipe (default: finetune, which needs --weights)"),
    _option("--weights", "initial weights: a checkpoint's tag or a file (default: random)"),
    _switch("--plain", "train the same network without SE", default=None),
    _option("--reduction", "reduction of the SE blocks (default: the network's)", count),
    _SIZE,
    _option("--epochs", "epochs (default: the recipe's); phases keep their proportions", count),
    _option("--batch-size", "images per step (default: the recipe's); learning rates change in proportion", count),
    _option("--seed", "seed of weights, order, and augmentation (default: 0)", natural),
    _option(
        "--precision", "Keras' dtype policy (default: float32)", choices=("float32", "mixed_bfloat16", "mixed_float16")
    ),
    _option("--validation-split", "fraction to hold back from a folder without val/ (default: 0.2)", fraction),
    _switch("--strict", "fail on unreadable files", default=None),
]
_SEVERAL_DEVICES = [
    _option("--distribute", "processes on JAX; GPUs of one machine on TensorFlow", choices=("jax", "mirrored")),
    _option("--coordinator", "address on which process 0 listens (jax)", metavar="HOST:PORT"),
    _option("--process-id", "number of this process, from 0 (jax)", natural, metavar="I"),
    _option("--num-processes", "number of processes (jax)", count, metavar="N"),
    _option("--devices", "devices, such as GPU:0 GPU:1 (mirrored; default: all)", nargs="+"),
]
_TRAIN: list[Entry] = [
    LOADING,
    _option("--model", "a network's name, or a .keras file"),
    _option(
        "--data",
        "folder with one folder of images per class (or train/ and val/), folder of TFRecord files, .npz file, "
        "cifar10, cifar100, tfds/NAME (TensorFlow Datasets), or sample",
    ),
    _option("--out", "folder of the run; it must not contain another run"),
    _option("--resume", "resume the run in this folder, with its own settings", metavar="FOLDER"),
    _switch("--recipes", "list the recipes with their sources and results"),
    Group("settings that determine the result", "Kept in the run's folder; --resume reads them from there.", _RESULT),
    Group("several devices or machines", "See docs/training-on-several-machines.md.", _SEVERAL_DEVICES),
    _option("--patience", "stop after this many epochs without improvement", count),
    _option("--save-every", "minutes between saves within an epoch", positive, default=10),
    _option("--threads", "threads that read images", count, default=2),
    _switch("--tensorboard", "write logs for TensorBoard into the run's folder (extra 'tensorboard')"),
]
_EVALUATE = [
    LOADING,
    _option("model", "a .keras file, an exported file, or published weights (model.tag)"),
    _DATA,
    *_HELD_BACK,
    _STRICT,
    _option("--threads", "CPU threads", count, default=2),
    _option("--report", "folder for metrics.json and confusion.png", metavar="FOLDER"),
    _option("--min-accuracy", "exit with 1 if the accuracy is below this fraction of 1", fraction),
]
_INSERT = [
    LOADING,
    _option("model", "a .keras file of a functional or sequential model, or published weights (model.tag)"),
    _option("--to", "the .keras file to write", metavar="FILE"),
    _option("--where", "auto, or a regular expression for layer names", default="auto"),
    _switch("--list", "only list the positions of the blocks"),
    _option("--reduction", "reduction of the blocks (default: 16; 4 suits fewer than 128 channels)", count),
    _switch("--freeze-base", "set all other layers to trainable=False, which training preserves"),
    _OVERWRITE,
]
_ANALYZE = [
    LOADING,
    _option("model", "a .keras file, or published weights (model.tag)"),
    _DATA,
    _option("--out", "folder for figures, their numbers as .csv, and gates.npz", required=True),
    *_HELD_BACK,
    _option("--images", "maximum number of images, evenly spaced (default: all)", count),
    _switch("--prune", "also measure what constant gates would save and cost"),
    _STRICT,
    _switch("--overwrite", "replace existing files"),
]
_EXPORT = [
    LOADING,
    _option("model", "a network's name, published weights (model.tag), or a .keras file"),
    _option("--format", "", choices=("saved_model", "tflite", "onnx", "openvino"), required=True),
    _option(
        "--dtype",
        "precision: fp32; fp16 and int8 (not for saved_model); others only for tflite; int8 and int16x8 need --data",
        choices=("fp32", "fp16", "int8", "int8_weights", "dynamic", "int16x8"),
        default="fp32",
    ),
    _option(
        "--keep-float",
        "layers or tensors of an int8 .tflite file to keep in float, besides the default ones; auto: as few more as "
        "needed; without names, also for .onnx and OpenVINO: none, not even the default ones",
        nargs="*",
    ),
    _option(
        "--input-type",
        "dtype of inputs and outputs of an int8 file (default: float32)",
        choices=("float32", "uint8", "int8"),
    ),
    _option("--weights", "weights of a network given without a tag; none: random", choices=("imagenet", "none")),
    _option("--size", "height and width of a network's input in pixels", count),
    _option(
        "--class-names",
        "text file, one name per line, in the order of the outputs (default: the model's own, else labels.txt next to "
        "it)",
    ),
    _option(
        "--data",
        "folder of photos (if it has train and val, calibrates on train and verifies on val), or an .npz file with an "
        "array per input",
    ),
    _option("--output", "file or folder to write (default: out/model.tflite, .onnx, .xml, or out/saved_model)"),
    _switch("--overwrite", "replace an existing file or folder"),
    *_VERDICT,
]
_VERIFY = [
    LOADING,
    _option("file", "a SavedModel folder, or a .tflite, .onnx, .xml, or .keras file, made here or elsewhere"),
    _option("--model", "model to compare with: a .keras file, model.tag, or another exported file"),
    _option(
        "--data",
        "folder of photos, with or without subfolders per class; or an .npz file with an array per input, and labels",
    ),
    *_VERDICT,
]
_BENCHMARK = [
    LOADING,
    _option("models", "exported files and folders, .keras files, or network names", nargs="+"),
    _option("--threads", "CPU threads (default: 1)", count, nargs="+", default=[1]),
    _option("--batch-sizes", "images per batch (default: 1)", count, nargs="+", default=[1]),
    _option("--repeats", "timed runs", count, default=30),
    _option("--warmups", "warmup runs", count, default=5),
    _switch("--gpu", "time .tflite files in LiteRT's GPU runtime"),
]
_DEMO = [
    _option("--output", "folder to write to", default="demo_output"),
    _option("--epochs", "epochs of the adaptation", count, default=20),
]

COMMANDS = {
    "list": Command(
        "list the networks, or their published weights",
        'se-keras list "se_resnet*"\n  se-keras list --max-params 6M --min-accuracy 75 --sort accuracy',
        _LIST,
    ),
    "info": Command(
        "show the structure of a network, the record of its weights, or the content of an exported file",
        "se-keras info se_resnet50",
        _INFO,
    ),
    "predict": Command(
        "classify image files, or all images in a folder",
        "se-keras predict photo.jpg --model demo_output/model.keras --top 3\n"
        "  se-keras predict --input photos --output labels.parquet --model se_resnet50",
        _PREDICT,
    ),
    "convert": Command(
        "convert a checkpoint to a file that Keras loads",
        "se-keras convert SE-ResNet-50.caffemodel --model se_resnet50 --to model.keras",
        _CONVERT,
    ),
    "train": Command(
        "train a network with a recipe, or resume a stopped run",
        "se-keras train --model se_resnet50 --weights imagenet --data photos --recipe finetune --out runs/photos\n"
        "  se-keras train --resume runs/photos",
        _TRAIN,
    ),
    "evaluate": Command(
        "measure the accuracy of a model or an exported file on labeled images",
        "se-keras evaluate runs/photos/model.keras --data photos",
        _EVALUATE,
    ),
    "insert": Command(
        "insert SE blocks into a saved model, whose outputs stay the same until it is trained",
        "se-keras insert model.keras --to with_se.keras",
        _INSERT,
    ),
    "analyze": Command(
        "analyze the gates of a network on labeled images",
        "se-keras analyze se_resnet20.cifar10 --data sample --out figures",
        _ANALYZE,
    ),
    "export": Command(
        "export a model for servers, phones, ONNX Runtime, or OpenVINO, and verify the file",
        "se-keras export se_resnet50 --format tflite --dtype int8 --data photos --output out/model.tflite",
        _EXPORT,
    ),
    "verify": Command(
        "run an exported file in its own runtime and compare it with its model; exit with 1 if it fails",
        "se-keras verify out/model.tflite --model model.keras --data photos --report out/report",
        _VERIFY,
    ),
    "benchmark": Command(
        "time exported files and models side by side",
        "se-keras benchmark out/model.tflite out/model.onnx se_resnet50 --threads 1 2 --batch-sizes 1 8",
        _BENCHMARK,
    ),
    "demo": Command(
        "classify, adapt, export, and compare on bundled images", "se-keras demo --output demo_output", _DEMO
    ),
}
"""The commands by name, in the order of the help."""
