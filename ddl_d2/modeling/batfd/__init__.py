"""Parts of BA-TFD and BA-TFD+, which find the forged seconds of clips; put together in `meta_arch.batfd`."""
