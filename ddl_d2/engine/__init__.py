"""Training: configuration, launching, optimizer, the step, hooks and checkpoints."""
