import math
import os
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from watchnext.retrieval.index.live import Probe
from watchnext.serving.drift import CalibrationDrift
from watchnext.serving.metrics import CONTENT_TYPE, Metrics

pytestmark = pytest.mark.usefixtures("unchecked_types")


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def value(metrics):
    """Gives `value(name, label=…)`: a sample of what an operator's Prometheus reads, None where there is none."""

    def read(name, **labels):
        families = text_string_to_metric_families(metrics.render().decode())
        samples = [sample for family in families for sample in family.samples]
        found = [s.value for s in samples if s.name == f"watchnext_{name}" and s.labels == labels]
        return found[0] if found else None

    return read


def test_a_stage_is_timed(metrics, value):
    metrics.timed("ranking", 0.5)
    metrics.timed("ranking", 3.0)
    assert value("stage_seconds_count", stage="ranking") == 2
    assert value("stage_seconds_bucket", stage="ranking", le="2.0") == 1
    assert value("stage_seconds_sum", stage="ranking") == 3.5


def test_every_stage_is_there_before_the_first_request(value):
    for stage in ("waiting", "history", "user_vector", "features", "ranking", "total"):
        assert value("stage_seconds_count", stage=stage) == 0


def test_a_source_is_timed_by_its_name(metrics, value):
    metrics.timed("source:co_watch", 0.1)
    assert value("source_seconds_count", source="co_watch") == 1
    assert value("stage_seconds_count", stage="source:co_watch") is None


@pytest.mark.parametrize(("seconds", "bucket", "below"), [(0.0001, "0.0001", None), (0.024, "0.025", "0.02")])
def test_buckets_reach_from_a_tenth_of_a_millisecond_to_two_seconds(metrics, value, seconds, bucket, below):
    metrics.timed("total", seconds)
    assert value("stage_seconds_bucket", stage="total", le=bucket) == 1
    assert below is None or value("stage_seconds_bucket", stage="total", le=below) == 0


def test_requests_are_counted_by_route_method_and_status(metrics, value):
    metrics.requested("/v1/users/{user_id}", "DELETE", 200)
    metrics.requested("/v1/users/{user_id}", "DELETE", 200)
    assert value("requests_total", route="/v1/users/{user_id}", method="DELETE", status="200") == 2


def test_lists_and_what_they_lack_are_counted(metrics, value):
    metrics.recommended("main")
    metrics.recommended("other", ("fewer candidates", "trending"))
    metrics.overloaded()
    assert [value("recommendations_total", variant=variant) for variant in ("main", "other")] == [1, 1]
    assert [value("degraded_total", reason=reason) for reason in ("fewer candidates", "trending")] == [1, 1]
    assert value("overload_refusals_total") == 1


def test_the_funnel_is_counted_by_source(metrics, value):
    for _ in range(2):
        metrics.funnel({"network": 300, "trending": 0}, {"network": 20})
    assert value("candidates_nominated_total", source="network") == 600
    assert value("candidates_nominated_total", source="trending") == 0
    assert value("places_filled_total", source="network") == 40


def test_events_are_counted_by_kind_and_outcome(metrics, value):
    metrics.received("watch", "accepted", 3)
    metrics.received("watch", "duplicate")
    assert value("events_total", kind="watch", outcome="accepted") == 3
    assert value("events_total", kind="watch", outcome="duplicate") == 1


def test_only_the_bundles_that_serve_now_are_named(metrics, value):
    metrics.serving({"main": "abc"})
    metrics.serving({"main": "def", "other": "abc"})
    assert value("bundle_info", version="abc", variant="main") is None
    assert value("bundle_info", version="def", variant="main") == 1
    assert value("bundle_info", version="abc", variant="other") == 1


def test_gauges_are_read_when_asked(metrics, value):
    for gauge in ("index_age_seconds", "bundle_log_age_seconds", "index_live_changes"):
        assert math.isnan(value(gauge))
    age = [4.0]
    metrics.index_age_seconds.set_function(lambda: age[0])
    metrics.log_age_seconds.set_function(lambda: 7.0)
    metrics.live_changes.set_function(lambda: 8.0)
    assert value("index_age_seconds") == 4.0
    age[0] = 5.0
    assert value("index_age_seconds") == 5.0
    assert (value("bundle_log_age_seconds"), value("index_live_changes")) == (7.0, 8.0)


def test_the_recall_probe(metrics, value):
    assert math.isnan(value("live_recall"))
    metrics.probed(Probe(0.95, 0.98))
    assert (value("live_recall"), value("tuned_recall")) == (0.95, 0.98)
    metrics.probed(Probe(0.9, None))
    assert value("live_recall") == 0.9 and math.isnan(value("tuned_recall"))


def test_dropped_answers_are_read_from_their_log(metrics, value):
    assert value("answers_dropped_total") == 0
    metrics.follow_dropped(lambda: 12)
    assert value("answers_dropped_total") == 12


def test_processes_that_answer_are_read_when_asked(metrics, value):
    assert value("processes_replaced_total") == 0
    assert value("answering_resident_memory_bytes", process="0") is None
    nobody = 2**22 + 1  # more than the system numbers
    metrics.follow_processes(lambda: [nobody, os.getpid()], lambda: 3)
    assert value("processes_replaced_total") == 3
    assert value("answering_resident_memory_bytes", process="0") is None
    assert value("answering_resident_memory_bytes", process="1") == pytest.approx(resident_bytes(), rel=0.1)


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_the_calibration_is_shown(metrics, value):
    metrics.calibration.expected("page", "7", 10.0)
    metrics.calibration.watched("page", "7", 25.0)
    assert (value("calibration_ratio"), value("calibration_watches")) == (2.5, 1)


def test_two_apps_in_one_process_count_apart(metrics, value):
    Metrics().overloaded()
    assert value("overload_refusals_total") == 0
    assert b"process_resident_memory_bytes" in metrics.render()


def test_the_content_type_is_prometheus_text():
    assert CONTENT_TYPE.startswith("text/plain; version=")


def told(drift, expected, watched):
    """Tells a drift of pages: {page: {video: seconds}}."""
    for tell, pages in ((drift.expected, expected), (drift.watched, watched)):
        for page, places in pages.items():
            for video, seconds in places.items():
                tell(page, video, seconds)
    return drift


def test_before_any_watch_there_is_no_ratio():
    drift = told(CalibrationDrift(), {"p": {"a": 30.0}}, {})
    assert math.isnan(drift.ratio) and drift.num_watched == 0


def test_all_places_of_a_watched_answer_count():
    # expected 30 + 10 of p, q was not watched at all; watched 50
    drift = told(CalibrationDrift(), {"p": {"a": 30.0, "b": 10.0}, "q": {"a": 99.0}}, {"p": {"a": 50.0}})
    assert drift.ratio == 1.25


def test_sums_are_divided_and_not_ratios_averaged():
    # (10 + 90) / (20 + 30) = 2, while the mean of 0.5 and 3 is 1.75
    drift = told(CalibrationDrift(), {"p": {"a": 20.0}, "q": {"a": 30.0}}, {"p": {"a": 10.0}, "q": {"a": 90.0}})
    assert drift.ratio == 2.0 and drift.num_watched == 2


def test_a_watch_that_is_told_again_takes_the_place_of_the_first():
    drift = told(CalibrationDrift(), {"p": {"a": 20.0}}, {"p": {"a": 10.0}})
    drift.watched("p", "a", 30.0)
    assert drift.ratio == 1.5 and drift.num_watched == 1


def test_what_is_not_remembered_or_not_known_is_left_alone():
    drift = told(CalibrationDrift(), {"p": {"a": 20.0, "b": None}}, {"p": {"b": 5.0}, "q": {"a": 5.0}})
    drift.watched("p", "a", None)
    assert drift.num_watched == 0
    drift.watched("p", "a", 5.0)
    assert drift.ratio == 0.25


def test_the_oldest_watched_answer_goes_first():
    pages = {"p": {"a": 1.0}, "q": {"a": 10.0, "b": 10.0}, "r": {"a": 20.0}}
    drift = told(CalibrationDrift(num_watched=3), pages, {"p": {"a": 9.0}, "q": {"a": 10.0, "b": 20.0}})
    assert drift.ratio == pytest.approx(39 / 21)
    drift.watched("r", "a", 30.0)  # a fourth watch: p goes
    assert drift.ratio == 60 / 40 and drift.num_watched == 3


def test_the_oldest_waiting_answer_goes_first():
    drift = told(CalibrationDrift(num_answers=2), {page: {"a": 1.0} for page in "pqr"}, {})
    drift.watched("p", "a", 5.0)
    assert drift.num_watched == 0
    drift.watched("q", "a", 5.0)
    assert drift.ratio == 5.0


def test_a_single_answer_may_be_larger_than_the_bound():
    drift = told(CalibrationDrift(num_watched=1), {"p": {"a": 1.0, "b": 1.0}}, {"p": {"a": 1.0, "b": 3.0}})
    assert drift.ratio == 2.0


def test_many_threads_may_tell():
    drift = CalibrationDrift()
    threads = [
        threading.Thread(
            target=told,
            args=(
                drift,
                {f"{name}{i}": {"a": 1.0} for i in range(200)},
                {f"{name}{i}": {"a": 2.0} for i in range(200)},
            ),
        )
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drift.ratio == 2.0 and drift.num_watched == 800
