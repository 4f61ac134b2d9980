"""The parts of system S1: pixel decoder, query decoder, matcher and criterion."""
