"""Building blocks: pure functions, tensor in, tensor out. No block knows which network contains it."""
