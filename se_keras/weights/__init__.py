"""Published weights: what exists, and how a checkpoint becomes a Keras model."""
