"""`find_positions`: positions by the standard rules, or chosen by the user."""

from __future__ import annotations

import keras

from se_keras.surgery.positions.chosen import chosen_positions
from se_keras.surgery.positions.position import Position, Where
from se_keras.surgery.positions.standard import standard_positions


def find_positions(model: keras.Model, where: Where = "auto") -> tuple[Position, ...]:
    """Finds the positions for SE blocks in a network; `insert_squeeze_excite` inserts the blocks.

    With `where="auto"`, the positions depend on the network's structure:

    - Additions (ResNet, Xception, ConvNeXt): the end of the residual branch, after its last
      normalization and before layers that only drop or scale it.
    - Inception modules (also Fire modules and NASNet's cells): the outermost concatenation.
    - Dense layers (DenseNet, ShuffleNet's units with stride 2): the new features, before their
      concatenation with the old ones.
    - Inverted residuals (MobileNetV2): the widened map, after the normalization and activation of
      the depthwise convolution, as in MobileNetV3 and EfficientNet. There, the paper's rule, the
      end of the branch, is `where="project_BN$"`.
    - Only if there is none of these (VGG, MobileNet): each convolution with its normalization and
      activation. A depthwise convolution and the 1x1 convolution after it count as one. A
      convolution that computes the network's answer is left alone.

    Reference: arXiv 1709.01507v4, section 3.3, figures 2 and 3; arXiv 1905.02244, section 5.3,
    for inverted residuals.

    Args:
        model: A functional model, or a built sequential one.
        where: "auto"; a regular expression that is searched for in the layers' names (`re.search`);
            a layer type; a function that returns whether a layer takes a block; or a list of
            names, in which "model/layer" is a layer of a nested model and "layer" is a layer of
            any model.

    Returns:
        The positions in the order of the graph, including those that already have SE or cannot
        take it, with the reason.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape; no layer matches
            `where`; or the list has a name that no layer has, or the name of a layer that cannot
            take a block.
        TypeError: `where` is none of these.

    Example:

    >>> [position.layer for position in find_positions(keras.applications.InceptionV3(weights=None))][:3]
    ['mixed0', 'mixed1', 'mixed2']
    """
    if isinstance(where, str) and where == "auto":
        return standard_positions(model)
    return chosen_positions(model, where)
