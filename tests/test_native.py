"""Work in parts, on this core and on others that have nothing to do."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from watchnext import native
from watchnext.native import lend_cores, lent_cores, side_by_side

PATIENT = 30.0


@pytest.fixture
def helper(monkeypatch):
    """The only helper that there is."""
    with ThreadPoolExecutor(1, "helper") as pool:
        monkeypatch.setattr(native, "_threads", lambda _: pool)
        yield pool


@pytest.fixture(autouse=True)
def nothing_lent():
    before = lent_cores()
    yield
    lend_cores(before)


def test_each_part_is_worked_on_once_and_by_whoever_is_free(helper):
    both, done = threading.Barrier(2), []

    def work(word, first, last):
        done.append((threading.current_thread().name[:6], word, first, last))
        both.wait(PATIENT)  # two threads at once, or never

    side_by_side(work, [0, 5, 9], ("part",), helpers=1)
    assert sorted(one[1:] for one in done) == [("part", 0, 5), ("part", 5, 9)]
    assert sum(name == "helper" for name, *_ in done) == 1


def test_a_helper_that_is_busy_is_not_waited_for(helper):
    may_end, done = threading.Event(), []
    busy = helper.submit(may_end.wait, PATIENT)
    side_by_side(lambda first, last: done.append((first, last)), [0, 1, 2, 3], (), helpers=1)
    assert done == [(0, 1), (1, 2), (2, 3)] and not busy.done()
    may_end.set()


def test_what_fails_beside_is_raised(helper):
    begun = threading.Event()

    def work(first, last):
        if threading.current_thread().name.startswith("helper"):
            begun.set()
            raise ArithmeticError("beside")
        begun.wait(PATIENT)

    with pytest.raises(ArithmeticError, match="beside"):
        side_by_side(work, [0, 1, 2], (), helpers=1)


@pytest.mark.parametrize("helpers, bounds", [(0, [0, 1, 2]), (3, [0, 1])])
def test_nobody_helps_where_nobody_may_or_can(monkeypatch, helpers, bounds):
    monkeypatch.setattr(native, "_threads", None)
    done = []
    side_by_side(lambda first, last: done.append(first), bounds, (), helpers)
    assert done == bounds[:-1]


def test_a_helper_works_on_one_core_where_pytorch_does():
    """OpenMP gives a new thread all cores, whatever PyTorch was told: its products would take them from others."""
    before, asked = torch.get_num_threads(), []
    torch.set_num_threads(1)
    native._threads.cache_clear()
    pool = native._threads(0)
    pool.submit(lambda: asked.append(torch.__config__.parallel_info())).result()
    torch.set_num_threads(before)
    native._threads.cache_clear()
    assert "omp_get_max_threads() : 1" in asked[0]


def test_lent_cores_are_those_that_were_lent():
    lend_cores(3)
    assert lent_cores() == 3
