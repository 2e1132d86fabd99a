"""Figures: trivial baselines, and the entry `evaluate`."""
