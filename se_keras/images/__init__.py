"""Photos: which files are images, how they are read, and how they become a network's input."""
