"""From files on disk to model input: opening, datasets, augmentation, the mapper, samplers and loaders."""
