"""What an operator sees: counters, gauges and histograms in Prometheus' text form, a registry for each app."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from watchnext.retrieval.index.live import Probe
from watchnext.serving.drift import CalibrationDrift

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
STAGES = ("waiting", "history", "user_vector", "features", "ranking", "total")
"""The stages of every request; each source of candidates is one more, `source:<name>`."""

_SOURCE = "source:"
_BUCKETS_SECONDS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075),
    *(0.1, 0.2, 0.5, 1.0, 2.0),
)


class Metrics:
    """All that is counted and timed in one app; each method is told of one thing that happened.

    Labels hold names of the service's own (routes as templates, stages, sources, variants), never what a request
    says. Gauges that are cheap to read are read when asked: `metrics.index_age_seconds.set_function(...)`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.heard: Callable[[str, float], None] = lambda stage, seconds: None
        self.calibration = CalibrationDrift()
        ProcessCollector(registry=self.registry)
        self._stages = self._histogram("stage_seconds", "Time that a stage of a request takes.", "stage")
        self._sources = self._histogram("source_seconds", "Time that a source of candidates takes.", "source")
        for stage in STAGES:
            self._stages.labels(stage)
        self._requests = self._counter("requests", "Requests by route template.", "route", "method", "status")
        self._recommendations = self._counter("recommendations", "Lists answered.", "variant")
        self._nominated = self._counter("candidates_nominated", "Candidates that a source nominated.", "source")
        self._filled = self._counter("places_filled", "Places of answers that a source had nominated.", "source")
        self._degraded = self._counter("degraded", "Answers that lack something for want of time.", "reason")
        self._events = self._counter("events", "Live events: accepted, duplicate, refused.", "kind", "outcome")
        self._overloads = self._counter("overload_refusals", "Requests refused at once because of overload.")
        self._bundles = self._gauge("bundle_info", "1 for each bundle that serves.", "version", "variant")
        self.index_age_seconds = self._gauge("index_age_seconds", "Since the video index was built.")
        self.log_age_seconds = self._gauge("bundle_log_age_seconds", "Since the end of the log behind the bundle.")
        self.live_changes = self._gauge("index_live_changes", "Videos added and removed since the index was built.")
        self._recall = self._gauge("live_recall", "Recall of the index for a sample of requests.")
        self._tuned_recall = self._gauge("tuned_recall", "Recall of the index when it was tuned.")
        ratio = self._gauge("calibration_ratio", "Watch seconds by expected ones of the latest watched answers.")
        ratio.set_function(lambda: self.calibration.ratio)
        watches = self._gauge("calibration_watches", "Watched places that the calibration ratio is made of.")
        watches.set_function(lambda: float(self.calibration.num_watched))
        self._dropped = _Followed("watchnext_answers_dropped", "Answers that are not in the answer log.")
        self._replaced = _Followed("watchnext_processes_replaced", "Processes that answered and ended.")
        self._answering = _Answering()
        for collector in (self._dropped, self._replaced, self._answering):
            self.registry.register(collector)

    def timed(self, stage: str, seconds: float) -> None:
        """Counts a stage of a request, and tells whoever listens."""
        self.heard(stage, seconds)
        if stage.startswith(_SOURCE):
            self._sources.labels(stage.removeprefix(_SOURCE)).observe(seconds)
        else:
            self._stages.labels(stage).observe(seconds)

    def requested(self, route: str, method: str, status: int) -> None:
        """Counts a request by its route's template, `/v1/users/{user_id}`."""
        self._requests.labels(route, method, str(status)).inc()

    def recommended(self, variant: str, degraded: tuple[str, ...] = ()) -> None:
        """Counts a list that was answered, and each reason for which it lacks something."""
        self._recommendations.labels(variant).inc()
        for reason in degraded:
            self._degraded.labels(reason).inc()

    def funnel(self, nominated: Mapping[str, int], filled: Mapping[str, int]) -> None:
        """Counts, by source, the candidates of one request and the places of its answer."""
        for counter, counts in ((self._nominated, nominated), (self._filled, filled)):
            for source, count in counts.items():
                counter.labels(source).inc(count)

    def received(self, kind: str, outcome: str, count: int = 1) -> None:
        """Counts live events of a kind: `accepted`, `duplicate` or `refused`."""
        self._events.labels(kind, outcome).inc(count)

    def overloaded(self) -> None:
        """Counts a request that was refused early because others wait."""
        self._overloads.inc()

    def serving(self, versions: Mapping[str, str]) -> None:
        """Names the bundle's version of every variant that serves now."""
        self._bundles.clear()
        for variant, version in versions.items():
            self._bundles.labels(version, variant).set(1)

    def probed(self, probe: Probe) -> None:
        """Notes the recall of the index; it is NaN until one is known."""
        self._recall.set(probe.recall)
        self._tuned_recall.set(float("nan") if probe.tuned_recall is None else probe.tuned_recall)

    def follow_dropped(self, read: Callable[[], int]) -> None:
        """Reads the count of answers missing in the answer log whenever it is asked for."""
        self._dropped.read = read

    def follow_processes(self, ids: Callable[[], Sequence[int]], num_replaced: Callable[[], int]) -> None:
        """Reads of the processes that answer beside this one, by the system's numbers, whenever it is asked for."""
        self._answering.ids, self._replaced.read = ids, num_replaced

    def render(self) -> bytes:
        """Gives all of it in the text form that `CONTENT_TYPE` names."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"watchnext_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        gauge = Gauge(f"watchnext_{name}", documentation, labels, registry=self.registry)
        if not labels:
            gauge.set(float("nan"))
        return gauge

    def _histogram(self, name: str, documentation: str, label: str) -> Histogram:
        return Histogram(f"watchnext_{name}", documentation, (label,), buckets=_BUCKETS_SECONDS, registry=self.registry)


class _Followed(Collector):
    """A counter whose value is kept by somebody else."""

    def __init__(self, name: str, documentation: str) -> None:
        self._name, self._documentation = name, documentation
        self.read: Callable[[], int] = int

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(self._name, self._documentation, value=self.read())


class _Answering(Collector):
    """The memory of each process that answers; of this process Prometheus' own collector tells."""

    def __init__(self) -> None:
        self.ids: Callable[[], Sequence[int]] = tuple

    def collect(self) -> Iterator[GaugeMetricFamily]:
        documentation = "Memory of each process that answers, with the pages that they share."
        family = GaugeMetricFamily("watchnext_answering_resident_memory_bytes", documentation, labels=("process",))
        for place, number in enumerate(self.ids()):
            for one in ProcessCollector(pid=partial(int, number), registry=None).collect():
                if one.name == "process_resident_memory_bytes":
                    family.add_metric([str(place)], one.samples[0].value)
        yield family
