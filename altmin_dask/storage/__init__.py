"""Files: sample stores, pre-activations, run folders, models."""
