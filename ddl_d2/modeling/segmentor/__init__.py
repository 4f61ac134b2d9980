"""Heads of the semantic segmentors that S1 compares itself with: an encoder's features become a map of logits."""
