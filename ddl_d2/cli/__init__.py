"""The `ddl-d2` command, and the functions behind tools/*.py."""
