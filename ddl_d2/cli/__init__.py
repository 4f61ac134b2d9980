"""The commands. Importing this, before torch, also settles how a program's threads wait, see `share_cores`."""

from ddl_d2.utils.threads import share_cores

share_cores(may_be_one=False)
