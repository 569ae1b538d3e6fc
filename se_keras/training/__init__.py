"""Data, recipes and the training loop."""
