import logging
import threading
import time

import numpy as np
import pytest

from watchnext.serving.deadlines import Budget, SideBySide

LISTS = np.array([[1, 2]]), np.array([[0.5, 0.25]], dtype=np.float32)
PATIENT = 30.0


def quick():
    return LISTS


def failing():
    raise ValueError("somebody@example.org")


@pytest.fixture
def timed():
    return []


@pytest.fixture
def side_by_side(timed):
    sources = SideBySide(8, lambda name, seconds: timed.append((name, seconds)))
    yield sources
    sources.close()


@pytest.fixture
def hanging():
    """A source that goes on until the test ends; `asked` counts its calls."""
    ended, asked = threading.Event(), []

    def hang():
        asked.append(None)
        ended.wait(PATIENT)
        return LISTS

    hang.asked, hang.end = asked, ended.set
    yield hang
    ended.set()


def test_what_is_left_is_what_was_not_used():
    budget = Budget(PATIENT)
    assert 0.0 < PATIENT - budget.left_seconds < PATIENT
    assert Budget(0.0).left_seconds < 0.0


def test_every_source_that_is_in_time_is_heard_and_timed(side_by_side, timed):
    budget = Budget(PATIENT)
    found = side_by_side.gather({"first": quick, "second": quick}, budget)
    assert list(found) == ["first", "second"] and found["first"] is LISTS
    assert budget.degraded == []
    assert sorted(name for name, _ in timed) == ["first", "second"]
    assert all(0.0 <= seconds < PATIENT for _, seconds in timed)


@pytest.mark.parametrize("seconds", [(PATIENT, 0.2), (0.2, PATIENT)], ids=["of the source", "of the request"])
def test_a_late_source_is_left_out_and_named(side_by_side, hanging, seconds):
    budget = Budget(*seconds)
    found = side_by_side.gather({"late": hanging, "quick": quick}, budget)
    assert list(found) == ["quick"]
    assert budget.degraded == ["source:late"]


def test_an_overdrawn_budget_waits_for_nobody(side_by_side, hanging):
    budget = Budget(-1.0)
    assert side_by_side.gather({"late": hanging}, budget) == {}
    assert budget.degraded == ["source:late"]


def test_a_failing_source_is_left_out_and_its_text_is_not_logged(side_by_side, timed, caplog):
    budget = Budget(PATIENT)
    with caplog.at_level(logging.DEBUG):
        found = side_by_side.gather({"broken": failing, "quick": quick}, budget)
    assert list(found) == ["quick"] and budget.degraded == ["source:broken"]
    assert "source broken failed: ValueError" in caplog.text and "somebody" not in caplog.text
    assert {name for name, _ in timed} == {"broken", "quick"}


def test_a_failing_source_is_asked_again(side_by_side):
    for _ in range(5):
        side_by_side.gather({"broken": failing}, Budget(PATIENT))
    assert "broken" in side_by_side.gather({"broken": quick}, Budget(PATIENT))


def test_a_source_that_hangs_twice_is_not_asked_again_until_one_call_ends(side_by_side, hanging):
    for _ in range(4):
        budget = Budget(PATIENT, 0.2)
        side_by_side.gather({"late": hanging}, budget)
        assert budget.degraded == ["source:late"]
    assert len(hanging.asked) == 2
    hanging.end()
    for _ in range(1000):
        if "late" in side_by_side.gather({"late": quick}, Budget(PATIENT)):
            return
        time.sleep(0.01)
    pytest.fail("the source is not asked any more")


def test_sources_of_many_requests_at_the_same_time_do_not_count_as_hanging(hanging):
    sources = SideBySide(8, lambda *_: None)
    budgets = [Budget(PATIENT) for _ in range(4)]
    found = []
    asking = [
        threading.Thread(target=lambda budget=budget: found.append(sources.gather({"slow": hanging}, budget)))
        for budget in budgets
    ]
    for one in asking:
        one.start()
    while len(hanging.asked) < len(asking):
        time.sleep(0.01)
    hanging.end()
    for one in asking:
        one.join()
    assert [list(one) for one in found] == [["slow"]] * 4
    assert [budget.degraded for budget in budgets] == [[]] * 4
    sources.close()


def test_a_call_that_did_not_begin_is_given_up(hanging):
    sources, asked = SideBySide(1, lambda *_: None), []
    for _ in range(3):
        sources.gather({"late": hanging, "behind": lambda: asked.append(None)}, Budget(PATIENT, 0.1))
    hanging.end()
    sources.gather({"behind": quick}, Budget(PATIENT))
    assert asked == []
    sources.close()
