"""Maps this package's names to those of checkpoints: one description per family, read by `weights.convert`."""

from se_keras.weights.rules.caffe import CAFFE_BN_INCEPTION, CAFFE_RESNET
from se_keras.weights.rules.family import Family, Source
from se_keras.weights.rules.torch import TIMM, TIMM_D, TIMM_LEGACY, TIMM_MOBILE, TIMM_REGNET

FAMILIES: dict[str, Family] = {
    "caffe_bn_inception": CAFFE_BN_INCEPTION,
    "caffe_resnet": CAFFE_RESNET,
    "timm_d": TIMM_D,
    "timm": TIMM,
    "timm_legacy": TIMM_LEGACY,
    "timm_mobile": TIMM_MOBILE,
    "timm_regnet": TIMM_REGNET,
}

__all__ = ["FAMILIES", "Family", "Source"]
