"""Building blocks: pure functions, tensor in, tensor out; no block knows which network it is in."""
