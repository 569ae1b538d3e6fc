"""The authors' Caffe checkpoints.

Caffe's blobs have no names of their own. Here, a blob's name is its layer's name and its number,
such as "conv2_1_3x3/bn[0]". Layer names: `hujie-frank/SENet`, models/*.prototxt.
"""

from __future__ import annotations

import functools

from se_keras.images.record import Preprocessing
from se_keras.weights.rules.family import Family, Source, conv_and_bn

_CONV = {"kernel": Source(("[0]",), "conv"), "bias": Source(("[1]",))}

# The authors subtract (104, 117, 123) from BGR pixels and do not divide.
CAFFE_INPUT = Preprocessing(mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255))

# Caffe's BatchNorm stores sums: blob 2 is the divisor of blobs 0 and 1.
VARIABLES = {
    "Conv2D": _CONV,
    "GroupedConv2D": _CONV,
    "Dense": {"kernel": Source(("[0]",), "dense"), "bias": Source(("[1]",))},
    "BatchNormalization": {
        "gamma": Source(("/bn/scale[0]",)),
        "beta": Source(("/bn/scale[1]",)),
        "moving_mean": Source(("/bn[0]", "/bn[2]"), "divided"),
        "moving_variance": Source(("/bn[1]", "/bn[2]"), "divided"),
    },
    "SqueezeExcite": {
        "reduce_kernel": Source(("_down[0]",), "pointwise"),
        "reduce_bias": Source(("_down[1]",)),
        "expand_kernel": Source(("_up[0]",), "pointwise"),
        "expand_bias": Source(("_up[1]",)),
    },
}


_family = functools.partial(
    Family, variables=VARIABLES, preprocessing=CAFFE_INPUT, class_order="devkit", channel_order="bgr"
)

CAFFE_RESNET = _family(
    layers={
        **conv_and_bn(
            {
                "stem_{}": "conv1/7x7_s2",
                "stem_{}1": "conv1_1/3x3_s2",
                "stem_{}2": "conv1_2/3x3",
                "stem_{}3": "conv1_3/3x3",
            }
        ),
        "logits": "classifier",
    },
    block=lambda stage, block: f"conv{stage}_{block}_",
    leaves={
        **conv_and_bn({"{}1": "1x1_reduce", "{}2": "3x3", "{}3": "1x1_increase", "proj_{}": "1x1_proj"}),
        "se": "1x1",
    },
    signature="conv2_1_1x1_reduce[0]",
)

# Our stages begin with their stride of 2, the authors' end with it.
_BN_INCEPTION_BLOCKS = {3: ("3a", "3b"), 4: ("3c", "4a", "4b", "4c", "4d"), 5: ("4e", "5a", "5b")}

CAFFE_BN_INCEPTION = _family(
    layers={
        **conv_and_bn({"stem_{}": "conv1/7x7_s2", "stage2_{}1": "conv2/3x3_reduce", "stage2_{}2": "conv2/3x3"}),
        "logits": "classifier",
    },
    block=lambda stage, block: f"inception_{_BN_INCEPTION_BLOCKS[stage][block - 1]}",
    leaves={
        **conv_and_bn(
            {
                "1x1_{}1": "/1x1",
                "3x3_{}1": "/3x3_reduce",
                "3x3_{}2": "/3x3",
                "double3x3_{}1": "/double3x3_reduce",
                "double3x3_{}2": "/double3x3a",
                "double3x3_{}3": "/double3x3b",
                "pool_{}1": "/pool_proj",
            }
        ),
        "se": "_1x1",
    },
    signature="inception_3a/1x1[0]",
)
