"""What the lens measures: one file a quantity."""
