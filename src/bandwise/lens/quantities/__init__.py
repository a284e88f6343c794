"""The quantities that the lens measures, one file each, and the figures that their rows hold."""
