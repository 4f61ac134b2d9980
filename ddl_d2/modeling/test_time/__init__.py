"""What is done to a network at test time: tiles, face crops, folded batch norms."""
