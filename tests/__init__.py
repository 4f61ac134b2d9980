"""The tests, in folders as those of `ddl_d2`."""

import os

# Before torch is imported. OpenMP's threads wait for each other by spinning: where other programs want the same cores,
# a step of a small network takes ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
