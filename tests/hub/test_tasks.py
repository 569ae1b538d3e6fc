"""KerasHub's detector and segmenter on our backbones: training, saving, presets, and exports."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from small_networks import answers

import se_keras
from se_keras.export.exportable import graph_alone

keras_hub = pytest.importorskip("keras_hub", reason="needs keras-hub")
# KerasHub compiles its tasks by itself, which Keras cannot repeat; Keras wraps arrays for KerasHub's preprocessing.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*compile.* was not called as part of model loading:UserWarning"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*shuffle=True.* was passed, but will be ignored:UserWarning"),
]


def detector(network, size):
    backbone = keras_hub.models.RetinaNetBackbone(
        image_encoder=se_keras.hub.backbone(network, image_shape=(size, size, 3)),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=(size, size, 3),
    )
    return keras_hub.models.RetinaNetObjectDetector(
        backbone, num_classes=2, bounding_box_format="xyxy", pre_logits_num_conv_layers=1
    )


def segmenter(network, size):
    backbone = keras_hub.models.DeepLabV3Backbone(
        image_encoder=se_keras.hub.backbone(network, image_shape=(size, size, 3)),
        spatial_pyramid_pooling_key="P5",
        low_level_feature_key="P2",
        upsampling_size=8,
        dilation_rates=[1, 2],
        image_shape=(size, size, 3),
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone, num_classes=3)


def boxes(size):
    corners = np.array([[[2, 2, 34, 34], [size - 40, size - 40, size - 4, size - 4]]] * 2, "float32")
    return {"boxes": corners, "labels": np.array([[0, 1]] * 2)}


def masks(size):
    return keras.utils.to_categorical(np.arange(2 * size * size).reshape(2, size, size) // 97 % 3, 3)


TASKS = {
    "detector": (detector, boxes, keras_hub.models.ObjectDetector),
    "segmenter": (segmenter, masks, keras_hub.models.ImageSegmenter),
}
NETWORKS = [("lcnet_050", 64), pytest.param(("se_resnet50", 128), marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: network[0])
def network(request):
    return request.param


@pytest.fixture(scope="module", params=["detector", pytest.param("segmenter", marks=pytest.mark.slow)])
def trained(request, network):
    """A task after one step of training, an image, and which of its weights have moved."""
    build, targets, base = TASKS[request.param]
    name, size = network
    model = build(name, size)
    images = (np.arange(2 * size * size * 3) * 7919 % 256).reshape(2, size, size, 3).astype("float32")
    before = {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights}
    model.run_eagerly = True
    model.fit(images, targets(size), batch_size=2, verbose=0)
    moved = {path: not np.array_equal(before[path], weight) for path, weight in values(model).items()}
    return model, images[:1], moved, base


def values(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights}


def flat(model, images):
    return keras.tree.flatten(answers(model, images))


def test_a_step_moves_every_squeeze_and_excitation(trained):
    blocks = {path: moved for path, moved in trained[2].items() if "_se/" in path}
    assert blocks
    assert np.mean(list(trained[2].values())) > 0.9
    assert np.mean(list(blocks.values())) > 0.9


def test_saved_task_is_the_same(trained, tmp_path):
    model, images, *_ = trained
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    for one, other in zip(flat(model, images), flat(loaded, images), strict=True):
        np.testing.assert_array_equal(one, other)


def test_preset_of_a_task_is_the_same(trained, tmp_path):
    model, images, _, base = trained
    model.save_to_preset(str(tmp_path / "preset"))
    loaded = base.from_preset(str(tmp_path / "preset"))
    assert isinstance(loaded.backbone.image_encoder, se_keras.hub.SEBackbone)
    for one, other in zip(flat(model, images), flat(loaded, images), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "write"),
    [
        *((segmenter, write) for write in ("saved_model", "tflite", "openvino")),
        *((detector, write) for write in ("saved_model", "tflite", "onnx")),
    ],
)
def test_exported_task_agrees(build, write, tmp_path):
    model = build("lcnet_050", 64)
    path = (
        tmp_path
        / {"saved_model": "folder", "tflite": "file.tflite", "onnx": "file.onnx", "openvino": "file.xml"}[write]
    )
    getattr(se_keras.export, write)(model, path, verbose=0)
    report = se_keras.export.verify(path, model, repeats=0, gpu_images=0, verbose=0)
    assert report.passed, report
    assert len(report.outputs) == (2 if build is detector else 1)


def test_what_a_file_is_compared_with_leaves_out_the_preprocessor():
    body = se_keras.hub.backbone("se_resnet20", image_shape=(32, 32, 3), include_preprocessing=False)
    preprocessor = se_keras.hub.SEImageClassifierPreprocessor(se_keras.hub.image_converter(body))
    task = se_keras.hub.SEImageClassifier(body, 3, preprocessor)
    images = np.full((1, 32, 32, 3), 100, "float32")
    graph = graph_alone(task)
    np.testing.assert_allclose(graph.predict_on_batch(images), answers(task, images), rtol=1e-5, atol=1e-6)
    assert graph_alone(graph) is graph
