"""Building blocks that know no config and nothing else of ddl_d2."""
