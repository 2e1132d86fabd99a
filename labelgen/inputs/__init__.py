"""Turns dialogues into the tensors that the model reads: features, recordings, tokens, batches."""
