"""The model: packed Transformer layers, the encoder, the audio encoder, and the losses."""
