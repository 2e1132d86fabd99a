"""Training: the data module, the cache, the Lightning modules, and the entry `train`."""
