"""What a model computes: activations, losses, chains of layers. NumPy only."""
