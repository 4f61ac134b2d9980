"""Parts of BA-TFD and BA-TFD+, which find the forged seconds of a clip with sound; put together in `meta_arch.batfd`."""
