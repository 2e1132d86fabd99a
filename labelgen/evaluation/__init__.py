"""Evaluation: trivial baselines, confidence intervals, and the entry `evaluate`."""
