"""`find_positions`: by the standard rules, or where the user says."""

from __future__ import annotations

import keras

from se_keras.surgery.positions.chosen import chosen_positions
from se_keras.surgery.positions.position import Position, Where
from se_keras.surgery.positions.standard import standard_positions


def find_positions(model: keras.Model, where: Where = "auto") -> tuple[Position, ...]:
    """Finds the places where a network takes SE blocks; `insert_squeeze_excite` puts them there.

    With `where="auto"` they are, by what the network consists of:

    - additions (ResNet, Xception, ConvNeXt): the end of the residual branch, after its last norm
      and before what only drops or scales it;
    - Inception modules (also Fire modules and NASNet's cells): the outermost concatenation;
    - dense layers (DenseNet, ShuffleNet's units of step 2): the new features, before their
      concatenation with the old ones;
    - inverted residuals (MobileNetV2): the widened map, after the norm and activation of the
      depthwise convolution, as MobileNetV3 and EfficientNet have it. The paper's rule, the end
      of the branch, is `where="project_BN$"` there;
    - only where there is none of these (VGG, MobileNet): each convolution with its norm and
      activation; a depthwise convolution and the 1x1 behind it count as one. A convolution
      that makes the answer is left alone.

    Reference: arXiv 1709.01507v4, section 3.3, figures 2 and 3; arXiv 1905.02244, section 5.3,
    for inverted residuals.

    Args:
        model: A functional model, or a sequential one that has been built.
        where: "auto"; a regular expression that is searched in the layers' names (`re.search`);
            a layer type; a function from a layer to whether it takes a block; or a list of
            names, where "model/layer" means a layer of a nested model and "layer" one of any.

    Returns:
        The positions in the order of the graph, also those that have SE already, or cannot
        take it, with the reason.

    Raises:
        ValueError: A subclassed model, or a sequential one that has no input shape yet; nothing
            fits `where`; a name in the list that no layer has, or of a layer that cannot take
            a block.
        TypeError: `where` is none of these.

    Example:

    >>> [position.layer for position in find_positions(keras.applications.InceptionV3(weights=None))][:3]
    ['mixed0', 'mixed1', 'mixed2']
    """
    if isinstance(where, str) and where == "auto":
        return standard_positions(model)
    return chosen_positions(model, where)
