import platform
import subprocess
import sys

import pytest

from ddl_d2.utils.malloc import keep_freed_memory

# Allocates and frees 64 MiB again and again; prints the page faults of a turn once the heap has settled.
_PROGRAM = """
import ctypes, resource, sys
from ddl_d2.utils.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc, size = ctypes.CDLL(None), 64 * 2**20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes, libc.free.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], [ctypes.c_void_p]
def turn():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min([turn() for _ in range(30)][-10:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {
        mode: int(subprocess.run([sys.executable, "-c", _PROGRAM, mode], capture_output=True, check=True).stdout)
        for mode in ("default", "keep")
    }
    assert faults["keep"] < 100 < faults["default"]


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
