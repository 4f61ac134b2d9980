"""How this process's C library treats freed memory."""

from __future__ import annotations

import ctypes
import logging
import platform

logger = logging.getLogger(__name__)

# From <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, for the next allocation of this process; return whether it does.

    By default it returns every large block to the system at once, and a network on a CPU frees and allocates the same
    hundreds of megabytes at each layer: their page faults take a third of its time. The price is that a process stays
    at its highest size. Elsewhere than on glibc (macOS, musl) nothing is done. Affects the whole process, so only
    programs call it, not the library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 * 2**20), (_M_MMAP_THRESHOLD, 2**30))
    refused = [name for name, value in settings if libc.mallopt(name, value) != 1]
    if refused:
        logger.info("glibc refused a setting of its allocator; CPU inference may be slower")
    return not refused
