"""Parts of the semantic segmentors that S1 compares itself with: heads that make a map of logits of an encoder's features."""
