"""SavedModel export, for servers, TF Hub, and TensorFlow programs."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.class_names import NAMES_FILE, class_names_for, write_class_names
from se_keras.errors import check_count
from se_keras.export.exportable import Format, check_export
from se_keras.export.image_bytes import Photos, prepared_images
from se_keras.export.inference_form import computes_in_half, in_single_precision, inference_form
from se_keras.export.proof import EXACT, HALF, check_file
from se_keras.export.warm_up import write_warm_up
from se_keras.files import SAVED_MODEL, replacing
from se_keras.images.record import Preprocessing
from se_keras.native_output import native_output_held
from se_keras.preprocessing import preprocessing_of
from se_keras.progress import steps
from se_keras.scores import SIGNATURES, Scores
from se_keras.surgery.graph import read_nested_graph
from se_keras.surgery.layer_facts import layers_inside
from se_keras.surgery.outputs import scores_of

FORMAT = Format("A SavedModel", takes_text=True)


def saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
    deploy: bool = True,
    top: int = 5,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
    verbose: str | int = "auto",
) -> pathlib.Path:
    """Writes a model as a SavedModel for TensorFlow Serving, TF Hub, `TFSMLayer`, and plain TensorFlow.

    Loading it requires neither Keras nor this package. The batch is dynamic, and outputs are float32
    even for a half-precision model. Its signatures:

    - "serving_default": maps `images` to "probabilities" if the model ends in softmax or sigmoid,
      "logits" if it ends in a dense layer without activation, and "output" otherwise, each exactly as
      the model returns it. `images` has the model's input shape and dtype: float32, RGB 0 to 255 for a
      network of this package. Cast uint8 pixels; do not divide them.
    - "serve_bytes": maps `image_bytes`, a vector of whole JPEG, PNG, BMP, or GIF files ({"b64": ...} in
      a REST request), to "probabilities" (batch, classes), the `top` most probable classes as "labels"
      and "scores" (batch, top), best first, and "status" (batch,). Without `class_names`, "labels" are the
      class indices as text. Logits pass through a softmax; one sigmoid (or logit) is the probability p
      of the second of two classes, and the first gets 1 - p; several sigmoids stay independent. Each
      image is decoded, turned upright, resized, and cropped as in `preprocess`, within the same limits.
      Where the two differ, it is by one level of 255 (bicubic: at most four observed), in one pixel in
      50 or, for tall images, in five. "status" is "", or states why a file has no prediction: its
      probabilities and scores are NaN, its labels "", and the rest of the batch is unaffected. The
      signature is missing if the model is not a classifier of RGB images (channels last), or if its
      input size is unknown.
    - "features": maps `images` to "pooled", the input of the classifier: the output of the layer named
      "pooled", else of the last global pooling. Missing if there is neither.

    The loaded object is callable, `loaded(images, training=False)`, and has `variables`,
    `trainable_variables`, and `regularization_losses` (functions without arguments, for weight decay by
    regularizers), which `hub.load` and `hub.KerasLayer(path, trainable=True)` in tf_keras use. For
    `keras.layers.TFSMLayer(path, call_endpoint="serve", call_training_endpoint="serve_train")` it has
    these two functions. `assets.extra` contains a request for each signature, which TensorFlow Serving
    runs before it accepts traffic. `assets/labels.txt` lists the class names for people and programs.

    Args:
        model: A functional or built sequential model with one input and one output.
        path: The folder to write.
        class_names: Class names, in the order of the model's outputs; for a single sigmoid or logit two
            names, in the order of the integer labels 0 and 1. Names must be unique. Default: the model's
            own, if it has any.
        deploy: True for inference: the model goes through `surgery.deploy`, computes in float32 even if
            it was trained in half precision, has no trainable variables and no "serve_train", and
            computes the same with `training=True`. False for fine-tuning: batch normalization and
            dropout obey `training`, every layer computes in the precision of its dtype policy, and the
            variables that are trainable in `model` are trainable.
        top: Number of class names that "serve_bytes" returns, at least 1; limited to the number of classes.
        preprocessing: How "serve_bytes" resizes, crops, and normalizes for a model built without its
            preprocessing. By default, such a model gets pixels from 0 to 255, with both sides
            stretched to its input size.
        overwrite: Whether to replace an existing SavedModel. A folder with other content is never replaced.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder exists, and `overwrite` is False or it is not a SavedModel.
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: Several inputs or outputs, a subclassed or unbuilt model, a softmax over one output,
            class names that do not fit the outputs, or `preprocessing` for a model that has its own.
    """
    check_export(model, path, FORMAT)
    import tensorflow as tf

    top = check_count("top", top)
    _check_single_tensors(model)
    scores = scores_of(model)
    class_names = _checked_names(model, scores, class_names)
    photos = _photos(model, scores, preprocessing)
    with (
        steps(f"Writing {os.fspath(path)}", 3, verbose=verbose) as advance,
        replacing(path, overwrite=overwrite, kind=SAVED_MODEL) as target,
        native_output_held(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        reference = in_single_precision(model) if deploy else model
        served = inference_form(reference) if deploy else model
        advance()
        loaded, predict = _reusable(served, is_trainable=not deploy)
        signatures = _image_signatures(served, SIGNATURES[scores.kind], predict)
        if photos is not None:
            signatures["serve_bytes"] = _bytes_signature(scores, predict, photos, class_names, top)
        if class_names is not None:
            loaded.labels = _names_asset(pathlib.Path(scratch), class_names)
        advance()
        tf.saved_model.save(loaded, os.fspath(target), signatures=signatures)
        write_warm_up(target, model.name, _warm_up_requests(model, signatures, photos))
        check_file(target, reference, tolerance=HALF if computes_in_half(reference) else EXACT)
        advance()
    _warn_of_compiled_functions(pathlib.Path(path))
    return pathlib.Path(path)


def pooled_output(model: keras.Model) -> Any:
    """Returns the features that a model's classifier reads.

    Args:
        model: A functional or sequential model.

    Returns:
        The symbolic output, of shape (batch, features), of the layer named "pooled", or else of the
        last global pooling; None if there is neither, or the layer is used several times.
    """
    pooling = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    graph = read_nested_graph(model)
    named = [call for call in graph.calls if call.name == "pooled"]
    for call in named or [call for call in reversed(graph.calls) if isinstance(call.operation, pooling)]:
        if graph.times_called(call.operation) == 1 and len(call.outputs) == 1 and len(call.outputs[0].shape) == 2:
            return call.outputs[0]
    return None


def _check_single_tensors(model: keras.Model) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"A model to export must have one input and one output; {model.name!r} has {len(model.inputs)} and "
            f"{len(model.outputs)}. "
            "Make a `keras.Model` from one of its inputs to one of its outputs."
        )


def _checked_names(model: keras.Model, scores: Scores, class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    shape = tuple(model.outputs[0].shape)
    if class_names is not None and len(shape) != 2:
        raise ValueError(f"`class_names` require outputs of shape (batch, classes); {model.name!r} has {shape}.")
    return class_names_for(model, class_names, scores.classes)


def _photos(model: keras.Model, scores: Scores, preprocessing: Preprocessing | None) -> Photos | None:
    """Returns the conversion of photos to inputs of the model; None if it is not a classifier of RGB images."""
    own = _own_record(model)
    if own is not None and preprocessing is not None:
        raise ValueError(
            f"`preprocessing` is for models without their own; {model.name!r} contains its preprocessing. Omit it."
        )
    record = own or preprocessing
    shape = tuple(model.inputs[0].shape[1:])
    is_rgb = len(shape) == 3 and shape[-1] == 3 and keras.config.image_data_format() == "channels_last"
    if not is_rgb or scores.kind == "output":
        return None
    if None not in shape:
        size = shape[:2]
    elif record is not None:
        size = record.height_width
    else:
        return None
    record = record and dataclasses.replace(record, size=size)
    return Photos(record, size, is_normalized=preprocessing is not None, dtype=model.inputs[0].dtype)


def _own_record(model: keras.Model) -> Preprocessing | None:
    """Returns the preprocessing of the model, or of a nested model that directly follows its input."""
    first = next((layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)), None)
    if isinstance(first, keras.Model):
        return _own_record(first)
    try:
        return preprocessing_of(model)
    except ValueError:
        return None


def _reusable(model: keras.Model, *, is_trainable: bool) -> tuple[Any, Any]:
    """Returns the object to save, and the inference function from images to {"output": ..., "pooled": ...}."""
    import tensorflow as tf

    pooled = pooled_output(model)
    outputs = {"output": model.outputs[0]} | ({} if pooled is None else {"pooled": pooled})
    network = keras.Model(model.inputs[0], outputs, name=model.name)
    # Plain TensorFlow variables, because a Keras variable keeps the trainable flag it was created with.
    copies = {id(variable): _copy(variable, is_trainable=is_trainable) for variable in network.variables}

    def forward(images: Any, training: bool) -> dict[str, Any]:
        trainable = [tf.convert_to_tensor(copies[id(variable)]) for variable in network.trainable_variables]
        others = [copies[id(variable)] for variable in network.non_trainable_variables]
        before = [tf.convert_to_tensor(variable) for variable in others]
        outputs, after = network.stateless_call(trainable, before, images, training=training)
        for variable, old, new in zip(others, before, after, strict=True):
            if training and new is not old:
                variable.assign(new)
        return {name: _in_float32(tensor) for name, tensor in outputs.items()}

    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), model.inputs[0].dtype, name="images")
    predict = tf.function(lambda images: forward(images, False), input_signature=[spec], autograph=False)
    train = tf.function(lambda images: forward(images, True), input_signature=[spec], autograph=False)

    def call(images: Any, training: bool = False) -> Any:
        return (train if training and is_trainable else predict)(images)["output"]

    loaded = tf.train.Checkpoint()
    loaded.__call__ = tf.function(call, autograph=False)
    for training in (False, True):
        loaded.__call__.get_concrete_function(spec, training=training)
    loaded.serve = tf.function(lambda images: call(images), input_signature=[spec], autograph=False)
    if is_trainable:
        loaded.serve_train = tf.function(lambda images: call(images, True), input_signature=[spec], autograph=False)
    loaded.lookups = [layer for layer in layers_inside(network) if hasattr(layer, "save_assets")]  # their tables
    loaded.variables = list(copies.values())
    loaded.trainable_variables = [variable for variable in copies.values() if variable.trainable]
    loaded.regularization_losses = [
        _penalty(variable.regularizer, copies[id(variable)])
        for variable in network.trainable_variables
        if is_trainable and variable.regularizer is not None
    ]
    return loaded, predict


def _copy(variable: Any, *, is_trainable: bool) -> Any:
    import tensorflow as tf

    value = keras.ops.convert_to_numpy(variable)
    return tf.Variable(value, dtype=variable.dtype, trainable=is_trainable and variable.trainable, name=variable.path)


def _in_float32(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.cast(tensor, tf.float32) if tensor.dtype.is_floating else tensor


def _penalty(regularizer: Callable, variable: Any) -> Any:
    import tensorflow as tf

    return tf.function(lambda: regularizer(variable), input_signature=[], autograph=False)


def _image_signatures(model: keras.Model, name: str, predict: Any) -> dict[str, Any]:
    import tensorflow as tf

    def signature(output: str, key: str) -> Any:
        return tf.function(
            lambda images: {output: predict(images)[key]}, input_signature=predict.input_signature, autograph=False
        )

    signatures = {"serving_default": signature(name, "output")}
    if pooled_output(model) is not None:
        signatures["features"] = signature("pooled", "pooled")
    return signatures


def _bytes_signature(
    scores: Scores, predict: Any, photos: Photos, class_names: tuple[str, ...] | None, top: int
) -> Any:
    import tensorflow as tf

    def serve_bytes(image_bytes: Any) -> dict[str, Any]:
        images, status = prepared_images(image_bytes, photos)
        count = tf.shape(status)[0]
        # TensorFlow's convolutions return a wrong number of channels for a batch without images.
        blank = tf.zeros((1, *photos.size, 3), images.dtype)
        images = tf.cond(tf.equal(count, 0), lambda: tf.ensure_shape(blank, images.shape), lambda: images)
        probabilities = scores.probabilities(predict(images)["output"])[:count]
        best, indices = tf.math.top_k(probabilities, min(top, scores.classes))
        shown = tf.constant(class_names or [str(index) for index in range(scores.classes)])
        is_whole = tf.equal(status, "")[:, None]
        return {
            "probabilities": tf.where(is_whole, probabilities, math.nan),
            "labels": tf.where(is_whole, tf.gather(shown, indices), ""),
            "scores": tf.where(is_whole, best, math.nan),
            "status": status,
        }

    spec = tf.TensorSpec((None,), tf.string, name="image_bytes")
    return tf.function(serve_bytes, input_signature=[spec], autograph=False)


def _names_asset(folder: pathlib.Path, class_names: Sequence[str]) -> Any:
    import tensorflow as tf

    file = folder / NAMES_FILE
    write_class_names(file, class_names)
    return tf.saved_model.Asset(os.fspath(file))


def _warm_up_requests(
    model: keras.Model, signatures: Mapping[str, Any], photos: Photos | None
) -> dict[str, dict[str, Any]]:
    import tensorflow as tf

    shape = list(model.inputs[0].shape[1:])
    if photos is not None:
        shape[:2] = photos.size
    requests: dict[str, dict[str, Any]] = {}
    for name in signatures:
        if name == "serve_bytes":
            gray = tf.fill((*photos.size, 3), tf.constant(127, tf.uint8))  # type: ignore[union-attr]
            requests[name] = {"image_bytes": [tf.io.encode_jpeg(gray).numpy()]}
        elif None not in shape:
            is_text = model.inputs[0].dtype == "string"
            value = np.full((1, *shape), b"", object) if is_text else np.full((1, *shape), 127, model.inputs[0].dtype)
            requests[name] = {"images": value}
    return requests


def _warn_of_compiled_functions(folder: pathlib.Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    functions = [function for graph in saved.meta_graphs for function in graph.graph_def.library.function]
    if any(function.attr["_XlaMustCompile"].b for function in functions):
        warnings.warn(
            "The SavedModel contains functions that must be compiled by XLA, which servers without XLA refuse. Keras' "
            "own grouped convolutions add one each; `se_keras.layers.GroupedConv2D` has the same weights and adds "
            "none.",
            stacklevel=3,
        )
