"""Published weights: which checkpoints exist, and how they become Keras models."""
