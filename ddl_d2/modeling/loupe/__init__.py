"""The parts of system S4, Loupe: what reads the tokens of an encoder."""
