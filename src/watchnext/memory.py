"""Memory: large blocks that are freed and taken at every step of training, and tables read at random places."""

import ctypes
import mmap
import platform
import threading
from pathlib import Path

import numpy as np

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the names of malloc.h
_AS_MUCH_AS_CAN_BE_SAID_BYTES = 2**31 - 1
_MADV_POPULATE_READ = 22  # the mmap module does not name it


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


def give_back_freed_memory() -> None:
    """Hands what is freed but kept back to the system, where this is glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def file_of_pages(path: Path, num_bytes: int) -> mmap.mmap:
    """Gives a new file of zeros as memory, for reading and writing at random places.

    The system is told so: by default it reads 128 KB around each page that is missing.
    """
    with path.open("wb+") as file:
        file.truncate(num_bytes)
        memory = mmap.mmap(file.fileno(), num_bytes)
    if hasattr(mmap, "MADV_RANDOM"):
        memory.madvise(mmap.MADV_RANDOM)
    return memory


def read_soon(array: np.ndarray) -> None:
    """Reads a mapped array into memory in the background, and keeps it there; nothing happens to one not mapped.

    Its pages become this process's own. Those that are only read ahead are the first that a system drops that is short
    of memory, and each costs a fault when it is met (docs/results.md).
    """
    if getattr(array, "_mmap", None) is not None and array.nbytes:
        threading.Thread(target=_populate, args=(array,), name="read-soon", daemon=True).start()


def _populate(array: np.ndarray) -> None:
    begin = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    size = array.ctypes.data + array.nbytes - begin
    advise = ctypes.CDLL(None).madvise
    if advise(ctypes.c_void_p(begin), ctypes.c_size_t(size), _MADV_POPULATE_READ) != 0:  # Linux before 5.14, or another
        _advise(array, "MADV_WILLNEED")


def _advise(array: np.ndarray, advice: str) -> None:
    memory = getattr(array, "_mmap", None)
    if memory is not None and hasattr(mmap, advice):
        memory.madvise(getattr(mmap, advice))


def large_pages(num_bytes: int) -> mmap.mmap:
    """Gives zeroed memory on pages of 2 MB where the system has them.

    Each read at a random place of a large table looks up where its page is: with pages of 4 KB that takes as long as
    the read itself (docs/results.md).
    """
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
