"""From dialogues to the tensors that the model reads: features, recordings, tokens, batches."""
