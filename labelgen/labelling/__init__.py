"""Labelling with a trained model: the Annotator, exports, and backfill over files, on one machine or a cluster."""
