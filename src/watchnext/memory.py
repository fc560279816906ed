"""Keeping freed memory: training frees and takes the same large blocks at every step."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names of malloc.h
_AS_MUCH_AS_CAN_BE_SAID_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc not to hand large freed blocks back to the system; says whether it listened.

    By default each block of some megabytes is mapped anew and zeroed by the kernel page by page, which took two
    thirds as long again as the training step itself (docs/results.md). Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    told = [library.mallopt(name, _AS_MUCH_AS_CAN_BE_SAID_BYTES) for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD)]
    return all(told)
