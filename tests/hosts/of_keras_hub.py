"""Backbones and tasks of keras_hub, with the fewest and narrowest stages."""

from __future__ import annotations

import functools
from typing import Any

import keras

IMAGE = (64, 64, 3)


def backbone(name: str, **options: Any) -> keras.Model:
    import keras_hub

    return getattr(keras_hub.models, f"{name}Backbone")(**{"image_shape": IMAGE, **options})


RESNET = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 64, 64, 64],
    "stackwise_num_blocks": [1, 2, 1, 1],
    "stackwise_num_strides": [1, 2, 2, 2],
}

MOBILENET = {
    "stackwise_expansion": [[16, 24], [32, 48, 48], [64, 64]],
    "stackwise_num_blocks": [2, 3, 2],
    "stackwise_num_filters": [[16, 16], [24, 24, 24], [32, 32]],
    "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25, 0.25], [0.25, 0.25]],
    "stackwise_activation": [["relu"] * 2, ["hard_swish"] * 3, ["hard_swish"] * 2],
    "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2]],
    "output_num_filters": 64,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 64,
    "squeeze_and_excite": 0.5,
}

EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0] * 3,
    "stackwise_depth_coefficients": [1.0] * 3,
    "stackwise_kernel_sizes": [3, 3, 5],
    "stackwise_num_repeats": [1, 2, 2],
    "stackwise_input_filters": [16, 16, 24],
    "stackwise_output_filters": [16, 24, 40],
    "stackwise_expansion_ratios": [1, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.25, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2],
    "stackwise_block_types": ["v1", "v1", "v1"],
    "stackwise_force_input_filters": [0, 0, 0],
    "stackwise_nores_option": [False, False, False],
    "num_features": 64,
    "input_shape": IMAGE,
}


def efficientnet() -> keras.Model:
    import keras_hub

    return keras_hub.models.EfficientNetBackbone(**EFFICIENTNET)


HGNET = {
    "depths": [1, 2],
    "embedding_size": 8,
    "hidden_sizes": [16, 32],
    "stem_channels": [3, 8, 8],
    "hidden_act": "relu",
    "use_learnable_affine_block": False,
    "stackwise_stage_filters": [(8, 8, 16, 1, 3, 3), (16, 16, 32, 2, 3, 3)],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
}

CSPNET = {
    "stem_filters": 16,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stackwise_num_filters": [16, 32],
    "stackwise_strides": [2, 2],
    "stackwise_depth": [1, 2],
    "block_type": "dark_block",
    "stage_type": "csp",
    "bottle_ratio": [0.5],
    "expand_ratio": [2.0, 1.0],
    "block_ratio": [1.0, 0.5],
}


def classifier() -> keras.Model:
    import keras_hub

    resnet = backbone("ResNet", block_type="basic_block", **RESNET)
    return keras_hub.models.ImageClassifier(backbone=resnet, num_classes=3)


def deeplab() -> keras.Model:
    import keras_hub

    resnet = backbone("ResNet", block_type="basic_block", **RESNET)
    deeplab = keras_hub.models.DeepLabV3Backbone(
        image_encoder=resnet,
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[2, 4],
        low_level_feature_key="P2",
        projection_filters=8,
        image_shape=IMAGE,
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(backbone=deeplab, num_classes=3)


NETWORKS = {
    "ResNet": functools.partial(backbone, "ResNet", block_type="bottleneck_block", **RESNET),
    "DenseNet": functools.partial(backbone, "DenseNet", stackwise_num_repeats=[2, 3], growth_rate=8),
    "MobileNet": functools.partial(backbone, "MobileNet", **MOBILENET),
    "EfficientNet": efficientnet,
    "HGNetV2": functools.partial(backbone, "HGNetV2", **HGNET),
    "CSPNet": functools.partial(backbone, "CSPNet", **CSPNET),
    "VGG": functools.partial(backbone, "VGG", stackwise_num_repeats=[1, 2], stackwise_num_filters=[8, 16]),
    "Xception": functools.partial(
        backbone, "Xception", stackwise_conv_filters=[[16, 32], [32, 32]], stackwise_pooling=[True, False]
    ),
    "ViT": functools.partial(
        backbone, "ViT", patch_size=(16, 16), num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    ),
    "ImageClassifier": classifier,
    "DeepLabV3ImageSegmenter": deeplab,
}
