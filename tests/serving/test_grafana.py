import json
import os
import re
from importlib.resources import files

import pytest

from watchnext.retrieval.index.live import Probe
from watchnext.serving.metrics import Metrics

WORDS = {"sum", "min", "max", "count", "rate", "increase", "histogram_quantile", "or", "vector", "group_left"}
LABELS_OF_THE_SCRAPE = {"job", "instance"}


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((files("watchnext.serving") / "grafana.json").read_text())


@pytest.fixture(scope="module")
def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def queries(dashboard, panels):
    variables = [one["definition"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    return [target["expr"] for panel in panels for target in panel["targets"]] + variables


@pytest.fixture(scope="module")
def exposed():
    """Each name that a query may use, with its labels."""
    metrics = Metrics()
    metrics.timed("source:network", 1.0)
    metrics.requested("/", "GET", 200)
    metrics.recommended("main", ("deadline",))
    metrics.funnel({"network": 1}, {"network": 1})
    metrics.received("watch", "accepted")
    metrics.serving({"main": "abc"})
    metrics.probed(Probe(1.0, 1.0))
    metrics.follow_processes(lambda: [os.getpid()], lambda: 0)
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found[sample.name] = set(sample.labels)
    return found


def names(query):
    """The metrics of a query: every word that is not one of the language, a label or a text."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|ignoring) ?\([^)]*\)|label_values\((\w+), \w+\)", r" \2 ", query)
    return set(re.findall(r"[a-zA-Z_]\w*", bare)) - WORDS


def test_every_metric_of_the_dashboard_exists(queries, exposed):
    assert queries and all(names(query) for query in queries)
    assert {name for query in queries for name in names(query)} <= set(exposed)


def test_every_metric_of_ours_is_on_the_dashboard(queries, exposed):
    shown = {name for query in queries for name in names(query)}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in exposed if name.startswith("watchnext_")}
    assert ours == {re.sub("_(bucket|sum|count)$", "", name) for name in shown if name.startswith("watchnext_")}


def test_every_label_of_the_dashboard_exists(panels, exposed):
    for target in (target for panel in panels for target in panel["targets"]):
        known = LABELS_OF_THE_SCRAPE.union(*(exposed[name] for name in names(target["expr"])))
        grouped = re.findall(r"(?:by|ignoring) ?\(([^)]*)\)", target["expr"])
        used = {label.strip() for group in grouped for label in group.split(",")}
        used |= set(re.findall(r"[{,](\w+)=", target["expr"])) | set(
            re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        )
        assert used <= known, target


def test_brackets_are_balanced(queries):
    for query in queries:
        assert all(query.count(left) == query.count(right) for left, right in ("()", "{}", "[]"))


def test_counters_are_read_as_rates_only(queries):
    for query in queries:
        for place in re.finditer(r"\w+_(total|bucket|sum|count)\{", query):
            assert re.search(r"(rate|increase)\($", query[: place.start()]), query


def test_the_rows_are_those_an_operator_asks_for(dashboard):
    assert [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"] == [
        "Traffic",
        "Latency by stage",
        "Funnel and sources",
        "Degradation",
        "Index and recall",
        "Calibration",
        "Versions",
    ]


def test_panels_lie_side_by_side(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
