"""SavedModel export, for servers, TF Hub, and TensorFlow programs."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.class_names import class_names_for
from se_keras.class_names_file import NAMES_FILE, write_class_names
from se_keras.errors import check_count
from se_keras.export.conversion import (
    PYTHON_FUNCTIONS,
    converting,
    lacking,
    names_of,
    saved_functions,
    saved_nodes,
)
from se_keras.export.exportable import Format, check_export
from se_keras.export.image_bytes import Photos
from se_keras.export.inference_form import computes_in_half, in_single_precision, inference_form
from se_keras.export.inputs import IMAGE, Input
from se_keras.export.model_ends import inputs_of, main_scores, output_scores
from se_keras.export.proof import EXACT, HALF, check_file
from se_keras.export.serve_bytes import bytes_signature, photos_of
from se_keras.export.warm_up import write_warm_up
from se_keras.files import SAVED_MODEL, replacing
from se_keras.images.record import Preprocessing
from se_keras.native_output import native_output_held
from se_keras.progress import steps
from se_keras.scores import SIGNATURES, Scores
from se_keras.surgery.graph import read_nested_graph
from se_keras.surgery.layer_facts import layers_inside

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
      network of this package. Cast uint8 pixels; do not divide them. Other inputs are named as in Keras; several
      outputs have their own names.
    - "serve_bytes": maps `image_bytes`, a vector of whole JPEG, PNG, BMP, or GIF files ({"b64": ...} in
      a REST request), to "probabilities" (batch, classes), the `top` most probable classes as "labels"
      and "scores" (batch, top), best first, and "status" (batch,). Without `class_names`, "labels" are the
      class indices as text. Logits pass through a softmax; one sigmoid (or logit) is the probability p
      of the second of two classes, and the first gets 1 - p; several sigmoids stay independent. Each
      image is decoded, turned upright, resized, and cropped as in `preprocess`, within the same limits.
      Where the two differ, it is by one level of 255 (bicubic: at most four observed), in one of 50
      pixels or, for tall images, one of five. "status" is "", or states why a file has no prediction: its
      probabilities and scores are NaN, its labels "", and the rest of the batch is unaffected. The
      signature is missing unless the model only classifies RGB images (channels last) and its input size is known.
    - "features": maps `images` to "pooled", the input of the classifier: the output of the layer named
      "pooled", else of the last global pooling. Missing if there is neither.

    The loaded object is callable, `loaded(images, training=False)`, and has `variables`,
    `trainable_variables`, and `regularization_losses` (functions without arguments, for weight decay by
    regularizers), which `hub.load` and `hub.KerasLayer(path, trainable=True)` in tf_keras use. For
    `keras.layers.TFSMLayer(path, call_endpoint="serve", call_training_endpoint="serve_train")` it has
    these two functions. `assets.extra` contains a request for each signature, which TensorFlow Serving
    runs before it accepts traffic. `assets/labels.txt` lists the class names for people and programs.

    Args:
        model: A functional or built sequential model. Several inputs are passed to `loaded(...)` as a
            dictionary, and several outputs are returned as one.
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
        preprocessing: How "serve_bytes" resizes, crops, and normalizes for a model without an `ImagePreprocessing`
            layer; if it rescales pixels itself, use a mean of 0 and a std of 1 / 255. By default, such a model gets
            pixels from 0 to 255, with both sides stretched to its input size.
        overwrite: Whether to replace an existing SavedModel. A folder with other content is never replaced.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder exists, and `overwrite` is False or it is not a SavedModel.
        RuntimeError: Keras does not run on TensorFlow.
        ValueError: The model is subclassed or not built, or has a softmax over one output; the class names do not fit
            the outputs or are the model's own in another order; `top` is below 1; a layer fails, or calls a Python
            function, which no file contains; or `preprocessing` is given for a model that has its own.
    """
    check_export(model, path, FORMAT)
    import tensorflow as tf

    top = check_count("top", top)
    scores = main_scores(output_scores(model))
    class_names = _checked_names(model, scores, class_names)
    photos = photos_of(model, scores, preprocessing)
    with (
        converting(model, FORMAT.what),
        steps(f"Writing {os.fspath(path)}", 3, verbose=verbose) as advance,
        replacing(path, overwrite=overwrite, kind=SAVED_MODEL) as target,
        native_output_held(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        reference = in_single_precision(model) if deploy else model
        served = inference_form(reference) if deploy else model
        advance()
        loaded, predict = _reusable(served, is_trainable=not deploy)
        signatures = _plain_signatures(served, SIGNATURES[scores.kind], predict)
        if photos is not None:
            signatures["serve_bytes"] = bytes_signature(scores, predict, photos, class_names, top)
        if class_names is not None:
            loaded.labels = _names_asset(pathlib.Path(scratch), class_names)
        advance()
        tf.saved_model.save(loaded, os.fspath(target), signatures=signatures)
        _check_operations(target, model)
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


def _checked_names(model: keras.Model, scores: Scores, class_names: Sequence[str] | None) -> tuple[str, ...] | None:
    shape = tuple(model.outputs[0].shape)
    if class_names is not None and len(model.outputs) == 1 and len(shape) != 2:
        raise ValueError(f"`class_names` require outputs of shape (batch, classes); {model.name!r} has {shape}.")
    return class_names_for(model, class_names, scores.classes)


def _reusable(model: keras.Model, *, is_trainable: bool) -> tuple[Any, Any]:
    """Returns the object to save, and the inference function from inputs to {"output": ..., "pooled": ...}.

    A single input or output is a tensor, and several are dictionaries by name.
    """
    import tensorflow as tf

    inputs, names, pooled = inputs_of(model), list(output_scores(model)), pooled_output(model)
    network = keras.Model(model.inputs, [*model.outputs, *([] if pooled is None else [pooled])], name=model.name)
    # Plain TensorFlow variables, because a Keras variable keeps the trainable flag it was created with.
    copies = {id(variable): _copy(variable, is_trainable=is_trainable) for variable in network.variables}

    def forward(feed: Any, training: bool) -> dict[str, Any]:
        values = [feed] if len(inputs) == 1 else [feed[one.name] for one in inputs]
        trainable = [tf.convert_to_tensor(copies[id(variable)]) for variable in network.trainable_variables]
        others = [copies[id(variable)] for variable in network.non_trainable_variables]
        before = [tf.convert_to_tensor(variable) for variable in others]
        found, after = network.stateless_call(trainable, before, values, training=training)
        for variable, old, new in zip(others, before, after, strict=True):
            if training and new is not old:
                variable.assign(new)
        found = [_in_float32(tensor) for tensor in keras.tree.flatten(found)]
        output = found[0] if len(names) == 1 else dict(zip(names, found[: len(names)], strict=True))
        return {"output": output} | ({} if pooled is None else {"pooled": found[-1]})

    specs = {one.name: tf.TensorSpec((None, *one.shape), one.dtype, name=one.name) for one in inputs}
    spec = specs if len(specs) > 1 else specs[inputs[0].name]
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


def _plain_signatures(model: keras.Model, name: str, predict: Any) -> dict[str, Any]:
    import tensorflow as tf

    def signature(output: str, key: str) -> Any:
        def answer(images: Any) -> dict[str, Any]:
            found = predict(images)[key]
            return found if isinstance(found, dict) else {output: found}

        return tf.function(answer, input_signature=predict.input_signature, autograph=False)

    signatures = {"serving_default": signature(name, "output")}
    if pooled_output(model) is not None:
        signatures["features"] = signature("pooled", "pooled")
    return signatures


def _names_asset(folder: pathlib.Path, class_names: Sequence[str]) -> Any:
    import tensorflow as tf

    file = folder / NAMES_FILE
    write_class_names(file, class_names)
    return tf.saved_model.Asset(os.fspath(file))


def _warm_up_requests(
    model: keras.Model, signatures: Mapping[str, Any], photos: Photos | None
) -> dict[str, dict[str, Any]]:
    import tensorflow as tf

    inputs = inputs_of(model)
    if photos is not None:
        inputs = (dataclasses.replace(inputs[0], shape=(*photos.size, 3)),)
    requests: dict[str, dict[str, Any]] = {}
    for name in signatures:
        if name == "serve_bytes":
            gray = tf.fill((*photos.size, 3), tf.constant(127, tf.uint8))  # type: ignore[union-attr]
            requests[name] = {"image_bytes": [tf.io.encode_jpeg(gray).numpy()]}
        elif not any(None in one.shape for one in inputs):
            requests[name] = {one.name: _example(one) for one in inputs}
    return requests


def _example(one: Input) -> np.ndarray:
    if one.dtype == "string":
        return np.full((1, *one.shape), b"", object)
    return np.full((1, *one.shape), 127 if one.kind == IMAGE else 0, one.dtype)


def _check_operations(folder: pathlib.Path, model: keras.Model) -> None:
    """Rejects calls of Python functions, which the file cannot contain: only this process could run it."""
    nodes = saved_nodes(folder, PYTHON_FUNCTIONS)
    if nodes:
        raise lacking("TensorFlow without this process", [node.op for node in nodes], model, names_of(nodes))


def _warn_of_compiled_functions(folder: pathlib.Path) -> None:
    if any(function.attr["_XlaMustCompile"].b for function in saved_functions(folder)):
        warnings.warn(
            "The SavedModel contains functions that must be compiled by XLA, which servers without XLA refuse. Keras' "
            "own grouped convolutions add one each; `se_keras.layers.GroupedConv2D` has the same weights and adds "
            "none.",
            stacklevel=3,
        )
