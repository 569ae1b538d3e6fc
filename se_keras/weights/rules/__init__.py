"""Maps this package's names to those of checkpoints: one description per family, read by `weights.convert`."""

from se_keras.errors import one_of
from se_keras.weights.rules.caffe import CAFFE_BN_INCEPTION, CAFFE_RESNET
from se_keras.weights.rules.family import OWN_NAMES, Family, Source
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
OWN = "se_keras"  # files of `save_safetensors`
KERAS = "keras"  # `.keras` and `.weights.h5` files, which only Keras reads


def family_named(name: str) -> Family:
    """Returns a family by its name.

    Args:
        name: A key of `FAMILIES`, or `OWN`.

    Raises:
        ValueError: The name is unknown (the message names the closest ones).
    """
    return OWN_NAMES if name == OWN else FAMILIES[one_of("family", name, FAMILIES)]


__all__ = ["FAMILIES", "KERAS", "OWN", "Family", "Source", "family_named"]
