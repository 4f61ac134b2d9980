"""The parts of system S3's network."""
