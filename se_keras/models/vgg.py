"""SE-VGG-16 with batch normalization."""

from __future__ import annotations

from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import conv_norm_act
from se_keras.blocks.excitation import SEConfig, excite
from se_keras.blocks.head import vgg_head
from se_keras.models.network import Network, endpoint

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg(x: Any, widths: tuple[tuple[int, ...], ...], se: SEConfig | None) -> Any:
    """Computes the features of VGG; the shapes in comments are for 224x224 and VGG-16.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        widths: Filters of the 3x3 convolutions of each stage.
        se: The SE block after the ReLU of each convolution, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, 512), sizes rounded down.
    """
    for stage, filters in enumerate(widths, start=1):
        for block, width in enumerate(filters, start=1):
            name = f"stage{stage}_block{block}"
            x = conv_norm_act(x, width, 3, name=f"{name}_{{}}")
            x = excite(x, se and se.at_stage(stage), f"{name}_se")
        x = layers.MaxPooling2D(2, 2, name=f"stage{stage}_pool")(x)
        x = endpoint(x, "stem" if stage == 1 else f"stage{stage}")
        # (112, 112, 64), (56, 56, 128), (28, 28, 256), (14, 14, 512), (7, 7, 512)
    return x


NETWORKS: dict[str, Network] = {
    "se_vgg16": Network(
        title="SE-VGG-16",
        about="VGG-16 with batch normalization, without convolution biases, and with SE after the ReLU of each of its "
        "13 convolutions. Reference: Hu et al., arXiv 1709.01507v4, section 3.3 and Table 2. A stage ends with its "
        "pooling: stage 2 is at 1/4 of the input's size. Stage 1 also has SE blocks.",
        skeleton=vgg,
        spec=VGG16,
        stages=(1, 2, 3, 4, 5),
        positions=("standard",),
        dropout=0.5,
        head=vgg_head,
        any_size=False,
    ),
}
