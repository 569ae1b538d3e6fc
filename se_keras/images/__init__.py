"""Photos: which files are images, and how they are read and become a network's input."""
