"""The parts of Mesorch (MITL), the localizer of system S2."""
