import pytest

from watchnext.serving import recent as module
from watchnext.serving.recent import Recent


@pytest.fixture
def clock(monkeypatch):
    """Gives `clock(seconds)`: sets the time."""
    now = [1_000_000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1_000_000.0 + seconds)


def test_quantiles_of_stages_by_hand(clock):
    recent = Recent()
    for milliseconds in range(1, 101):
        recent.timed("ranking", milliseconds / 1000)
    recent.timed("source:fresh", 0.007)
    told = recent.latencies_ms()
    assert told["ranking"] == {"p50": 50.5, "p95": 95.05, "p99": 99.01}
    assert told["fresh"] == {"p50": 7.0, "p95": 7.0, "p99": 7.0}


def test_only_the_latest_times_count(clock):
    recent = Recent()
    for _ in range(2_000):
        recent.timed("total", 1.0)
    for _ in range(2_000):
        recent.timed("total", 0.001)
    assert recent.latencies_ms()["total"]["p99"] == 1.0
    assert recent.totals["total"] == 4_000


def test_traffic_is_told_by_five_seconds(clock):
    recent = Recent()
    for _ in range(10):
        recent.timed("total", 0.020)
    recent.answered(True, {"network": 20}, {"network": 5}, 5)
    clock(11)
    recent.timed("total", 0.030)
    recent.timed("ranking", 9.0)
    assert recent.history() == [
        {"at": 1_000_000, "per_second": 2.0, "p50": 20.0, "p99": 20.0, "degraded": 1},
        {"at": 1_000_005, "per_second": 0.0, "p50": 0.0, "p99": 0.0, "degraded": 0},
        {"at": 1_000_010, "per_second": 0.2, "p50": 30.0, "p99": 30.0, "degraded": 0},
    ]


def test_ten_minutes_are_kept_however_long_nothing_came(clock):
    recent = Recent()
    recent.timed("total", 0.020)
    clock(100_000)
    history = recent.history()
    assert len(history) == 120 and history[-1]["at"] == 1_100_000 and history[0]["at"] == 1_100_000 - 119 * 5
    assert {step["per_second"] for step in history} == {0.0}


def test_a_clock_that_goes_back_adds_to_the_latest_step(clock):
    recent = Recent()
    recent.timed("total", 0.020)
    clock(-100)
    recent.timed("total", 0.020)
    assert [step["per_second"] for step in recent.history()] == [0.4]


def test_sources_and_places_are_counted(clock):
    recent = Recent()
    recent.answered(False, {"network": 20, "fresh": 5}, {"network": 10}, 10)
    recent.answered(True, {"network": 20}, {"network": 8, "fresh": 2}, 10)
    recent.count("accepted", 3)
    recent.count("refused")
    assert recent.nominated == {"network": 40, "fresh": 5} and recent.shown == {"network": 18, "fresh": 2}
    told = ("answers", "degraded", "places", "accepted", "refused")
    assert [recent.totals[name] for name in told] == [2, 1, 20, 3, 1]
