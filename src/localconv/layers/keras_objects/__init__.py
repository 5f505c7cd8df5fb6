"""What names in a layer's arguments stand for: activations, initializers, regularizers and constraints."""
