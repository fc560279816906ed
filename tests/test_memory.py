import ctypes
import mmap
import platform
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from watchnext import memory
from watchnext.memory import file_of_pages, give_back_freed_memory, keep_freed_memory, large_pages, read_soon


@pytest.mark.parametrize(("libc", "listens"), [("glibc", True), ("musl", False)])
def test_only_glibc_is_told(monkeypatch, libc, listens):
    if platform.libc_ver()[0] != "glibc" and listens:
        pytest.skip("no glibc on this machine")
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.36"))
    assert keep_freed_memory() is listens


FREED = """
import os
from watchnext.memory import give_back_freed_memory, keep_freed_memory

def held_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

keep_freed_memory()
blocks = [b"x" * 1_000_000 for _ in range(100)]
del blocks
before = held_bytes()
give_back_freed_memory()
print(before - held_bytes())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="elsewhere nothing is kept")
def test_what_was_kept_can_be_given_back():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 80_000_000


def test_without_glibc_nothing_is_given_back(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", "1.2"))
    monkeypatch.setattr(ctypes, "CDLL", None)
    give_back_freed_memory()


def test_large_pages_are_asked_for_and_come_zeroed():
    memory = large_pages(5_000_000)
    assert len(memory) == 5_000_000 and not any(memory[:: 4096 * 100])
    memory[-1] = 7
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = next(line for line in _mapping_at(address) if line.startswith("VmFlags:")).split()
    assert "hg" in flags  # as proc(5) says: a huge page is advised
    assert "sh" not in flags  # the system gives none to shared memory


def test_systems_without_large_pages_give_usual_ones(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE")
    assert large_pages(10)[:] == bytes(10)


def test_a_file_of_pages_is_written_and_read_at_random(tmp_path):
    memory = file_of_pages(tmp_path / "table", 9_000)
    assert memory[:] == bytes(9_000)
    memory[8_999] = 7
    assert (tmp_path / "table").read_bytes() == bytes(8_999) + b"\x07"
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    flags = next(line for line in _mapping_at(address) if line.startswith("VmFlags:")).split()
    assert "rr" in flags and "sh" in flags  # random reads are advised; writes reach the file


def test_systems_that_take_no_advice_give_files_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delattr(mmap, "MADV_RANDOM")
    assert file_of_pages(tmp_path / "table", 10)[:] == bytes(10)


def test_a_mapped_array_is_read_soon(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(100_000))
    array = np.load(tmp_path / "array.npy", mmap_mode="r")
    read_soon(array)
    _wait()
    resident = next(line for line in _mapping_at(array.ctypes.data) if line.startswith("Rss:")).split()
    assert 1024 * int(resident[1]) >= array.nbytes
    assert array[99_999] == 99_999


def test_an_array_that_is_not_mapped_is_left_alone():
    read_soon(np.arange(3))
    assert not [thread for thread in threading.enumerate() if thread.name == "read-soon"]


@pytest.mark.parametrize("listens", [True, False])
def test_a_system_that_cannot_populate_is_asked_to_read_ahead(monkeypatch, tmp_path, listens):
    np.save(tmp_path / "array.npy", np.arange(3))
    monkeypatch.setattr(memory, "_MADV_POPULATE_READ", 22 if listens else 9_999)
    asked = []
    monkeypatch.setattr(memory, "_advise", lambda array, advice: asked.append(advice))
    read_soon(np.load(tmp_path / "array.npy", mmap_mode="r"))
    _wait()
    assert asked == ([] if listens else ["MADV_WILLNEED"])


def _wait() -> None:
    for thread in threading.enumerate():
        if thread.name == "read-soon":
            thread.join()


def _mapping_at(address: int) -> list[str]:
    """What Linux says of the mapping that holds the address."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    for place, line in enumerate(lines):
        first, dash, rest = line.partition("-")
        if dash and ":" not in first and int(first, 16) <= address < int(rest.split()[0], 16):
            return lines[place + 1 : place + 30]
    raise AssertionError("not mapped")
