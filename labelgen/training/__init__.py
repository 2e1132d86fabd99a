"""Training: data module, cache, Lightning modules, the entry `train`."""
