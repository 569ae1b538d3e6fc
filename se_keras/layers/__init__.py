"""Keras layers: everything that owns weights or needs a name in a saved model."""

import sys

from se_keras.layers.batch_normalization import BatchNormalization
from se_keras.layers.channel_shuffle import ChannelShuffle
from se_keras.layers.grouped_conv2d import GroupedConv2D
from se_keras.layers.image_preprocessing import ImagePreprocessing
from se_keras.layers.squeeze_excite import SqueezeExcite

# Keras follows the graph of a functional model by recursion: 1,600 calls for ResNet-RS-420, also to load it.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 3000))

__all__ = ["BatchNormalization", "ChannelShuffle", "GroupedConv2D", "ImagePreprocessing", "SqueezeExcite"]
