"""The parts of LFDL, the detector of system S2."""
