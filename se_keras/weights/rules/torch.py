"""PyTorch checkpoints of SE-ResNet, SE-ResNeXt, and SENet-154.

`TIMM_LEGACY` has the names of Cadene's `pretrained-models.pytorch`, which timm keeps for its
models legacy_*. `TIMM` has those of timm's other residual networks, which are torchvision's with
an SE block.
"""

from __future__ import annotations

import dataclasses
import functools

from se_keras.weights.rules.family import Family, Source

_CONV = {"kernel": Source((".weight",), "conv"), "bias": Source((".bias",))}

VARIABLES = {
    "Conv2D": _CONV,
    "GroupedConv2D": _CONV,
    "Dense": {"kernel": Source((".weight",), "dense"), "bias": Source((".bias",))},
    "BatchNormalization": {
        "gamma": Source((".weight",)),
        "beta": Source((".bias",)),
        "moving_mean": Source((".running_mean",)),
        "moving_variance": Source((".running_var",)),
    },
    "SqueezeExcite": {
        "reduce_kernel": Source((".fc1.weight",), "pointwise"),
        "reduce_bias": Source((".fc1.bias",)),
        "expand_kernel": Source((".fc2.weight",), "pointwise"),
        "expand_bias": Source((".fc2.bias",)),
    },
}

_LEAVES = {
    **{name: name for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")},
    "proj_conv": "downsample.0",
    "proj_bn": "downsample.1",
}


_family = functools.partial(
    Family,
    block=lambda stage, block: f"layer{stage - 1}.{block - 1}.",
    variables=VARIABLES,
    ignored=(".num_batches_tracked",),
)

TIMM_LEGACY = _family(
    layers={
        "stem_conv": "layer0.conv1",
        "stem_bn": "layer0.bn1",
        **{f"stem_{name}": f"layer0.{name}" for name in ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")},
        "logits": "last_linear",
    },
    leaves={**_LEAVES, "se": "se_module"},
    signature="layer1.0.se_module.fc1.weight",
    lineage="legacy",
)

TIMM = _family(
    layers={
        "stem_conv": "conv1",
        "stem_bn": "bn1",
        "stem_conv1": "conv1.0",
        "stem_bn1": "conv1.1",
        "stem_conv2": "conv1.3",
        "stem_bn2": "conv1.4",
        "stem_conv3": "conv1.6",
        "stem_bn3": "bn1",
        "stem_conv4": "maxpool.0",
        "stem_bn4": "maxpool.1",
        "logits": "fc",
    },
    leaves={**_LEAVES, "se": "se"},
    signature="layer1.0.se.fc1.weight",
    lineage="timm",
)

# In ResNet-D, the shortcut's pooling comes first and also has a number.
TIMM_D = dataclasses.replace(
    TIMM,
    leaves={**TIMM.leaves, "proj_conv": "downsample.1", "proj_bn": "downsample.2"},
    signature="layer1.0.downsample.2.weight",
)

TIMM_REGNET = _family(
    layers={"stem_conv": "stem.conv", "stem_bn": "stem.bn", "logits": "head.fc"},
    block=lambda stage, block: f"s{stage - 1}.b{block}.",
    leaves={
        "conv1": "conv1.conv",
        "bn1": "conv1.bn",
        "conv2": "conv2.conv",
        "bn2": "conv2.bn",
        "conv3": "conv3.conv",
        "bn3": "conv3.bn",
        "proj_conv": "downsample.conv",
        "proj_bn": "downsample.bn",
        "se": "se",
    },
    signature="s1.b1.conv1.conv.weight",
)

TIMM_MOBILE = _family(
    layers={
        "stem_conv": "conv_stem",
        "stem_bn": "bn1",
        "head_conv": "conv_head",
        "head_bn": "bn2",
        "logits": "classifier",
    },
    block=lambda part, block: f"blocks.{part - 1}.{block - 1}.",
    block_layer=r"block(\d+)([a-z]+)_(\w+)",
    leaves={
        "depthwise_conv": "conv_dw",
        "depthwise_bn": "bn1",
        "pointwise_conv": "conv_pw",
        "pointwise_bn": "bn2",
        "expand_conv": "conv_pw",
        "expand_bn": "bn1",
        "dwconv_conv": "conv_dw",
        "dwconv_bn": "bn2",
        "project_conv": "conv_pwl",
        "project_bn": "bn3",
        "fused_conv": "conv_exp",
        "fused_bn": "bn1",
        "reduce_conv": "conv_pwl",
        "reduce_bn": "bn2",
        "conv": "conv",
        "bn": "bn1",
        "se": "se",
    },
    variables={
        **VARIABLES,
        "DepthwiseConv2D": {"kernel": Source((".weight",), "depthwise")},
        "SqueezeExcite": {
            "reduce_kernel": Source((".conv_reduce.weight",), "pointwise"),
            "reduce_bias": Source((".conv_reduce.bias",)),
            "expand_kernel": Source((".conv_expand.weight",), "pointwise"),
            "expand_bias": Source((".conv_expand.bias",)),
        },
    },
    signature="blocks.0.0.bn1.weight",
)
