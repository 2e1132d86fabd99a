"""labelgen: from raw conversation logs to ground truth."""

__version__ = "0.1.0"
