"""Simulated users and an assistant whose components fail: dialogues with the truth of every label."""
