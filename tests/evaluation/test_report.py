import base64
import dataclasses
import json
import re

import pytest

from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.report import Report, shown, write_report

NAN = float("nan")
REPORT = Report(
    log={"name": "films <script>alert(1)</script> & more", "num_events": 12_345},
    retrieval={
        "popularity": {"recall@10": Estimate(0.1, 0.05, 0.15), "recall@50": Estimate(0.2, 0.1, 0.3)},
        "our network": {"recall@10": Estimate(0.4, 0.35, 0.45), "recall@50": Estimate(0.6, 0.5, 0.7)},
    },
    ranking={
        "global mean": {"weighted_loss": Estimate(0.5, 0.5, 0.5), "mae_seconds": 12.5},
        "our ranker": {"weighted_loss": Estimate(0.31, 0.3, 0.32), "mae_seconds": 9.25},
    },
    reliability=[(1.0, 1.5, 10), (20.0, 18.0, 11)],
    training={"retrieval early": {"losses": [3.0, 2.0], "scores": [0.1, 0.2]}},
    settings={"retrieval": {"tower": (64, 32), "note": "<b>bold</b>"}},
    notes=["The log has no impressions."],
    index_curve=[],
)


@pytest.fixture
def html_of(tmp_path):
    def written(report: Report) -> str:
        write_report(report, tmp_path)
        return (tmp_path / "report.html").read_text()

    return written


def not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def figures_of(report: Report) -> dict:
    return json.loads(report.to_json(), parse_constant=not_json)


def test_json_has_every_figure(tmp_path):
    write_report(REPORT, tmp_path)
    figures = json.loads((tmp_path / "report.json").read_text())
    assert figures["log"] == REPORT.log
    assert figures["retrieval"]["our network"]["recall@50"] == {"value": 0.6, "low": 0.5, "high": 0.7}
    assert figures["ranking"]["our ranker"]["mae_seconds"] == 9.25
    assert figures["reliability"] == [[1.0, 1.5, 10], [20.0, 18.0, 11]]
    assert figures["training"]["retrieval early"] == {"losses": [3.0, 2.0], "scores": [0.1, 0.2]}
    assert figures["settings"]["retrieval"]["tower"] == [64, 32]
    assert figures["notes"] == ["The log has no impressions."]


def test_an_unknown_figure_is_null_in_json():
    unknown = {"ours": {"weighted_loss": Estimate(NAN, NAN, NAN), "xauc": NAN, "mae_seconds": float("inf")}}
    figures = figures_of(dataclasses.replace(REPORT, ranking=unknown, reliability=[(NAN, 1.0, 2)]))
    assert figures["ranking"]["ours"]["weighted_loss"] == {"value": None, "low": None, "high": None}
    assert figures["ranking"]["ours"]["xauc"] is None
    assert figures["ranking"]["ours"]["mae_seconds"] is None
    assert figures["reliability"] == [[None, 1.0, 2]]


def test_page_shows_an_unknown_figure_as_such(html_of):
    unknown = {"ours": {"weighted_loss": Estimate(NAN, NAN, NAN), "xauc": NAN}}
    page = html_of(dataclasses.replace(REPORT, ranking=unknown))
    assert "nan [nan, nan]" in page and "<td>nan</td>" in page


def test_page_needs_nothing_else(html_of):
    page = html_of(REPORT)
    assert "http://" not in page and "https://" not in page
    assert "<script" not in page and "<link" not in page
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_pictures_are_pngs(html_of):
    for picture in re.findall(r'src="data:image/png;base64,([^"]+)"', html_of(REPORT)):
        assert base64.b64decode(picture, validate=True).startswith(b"\x89PNG")


def test_page_names_systems_metrics_figures_and_notes(html_of):
    page = html_of(REPORT)
    for text in ("our network", "popularity", "our ranker", "global mean", "recall@50", "weighted loss"):
        assert text in page
    for figure in ("0.600 [0.500, 0.700]", "0.310 [0.300, 0.320]", "9.250", "12,345", "The log has no impressions."):
        assert figure in page


def test_page_escapes_what_the_log_is_called(html_of):
    page = html_of(REPORT)
    assert "films &lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    assert "<b>bold</b>" not in page


def test_page_without_impressions_has_no_ranking(html_of):
    page = html_of(dataclasses.replace(REPORT, ranking={}, reliability=[]))
    assert "<h2>Ranking" not in page
    assert page.count("<img") == 2


def test_page_shows_what_was_measured_of_an_approximate_index(html_of):
    curve = [{"recall": 0.5, "recall_p5": 0.3, "p50_ms": 1.0}, {"recall": 0.9, "recall_p5": 0.8, "p50_ms": 4.0}]
    report = dataclasses.replace(REPORT, index_curve=curve)
    page = html_of(report)
    assert "<h2>Index" in page and page.count("<img") == 4
    assert figures_of(report)["index_curve"] == curve
    assert "<h2>Index" not in html_of(REPORT)


def test_page_without_deciles_has_no_picture_of_them(html_of):
    page = html_of(dataclasses.replace(REPORT, reliability=[]))
    assert "<h2>Ranking" in page
    assert page.count("<img") == 2


def test_page_without_lists_has_no_retrieval(html_of):
    page = html_of(dataclasses.replace(REPORT, retrieval={}))
    assert "<h2>Retrieval" not in page


def test_a_fit_with_nothing_to_lose_is_drawn(html_of):
    training = {"retrieval early": {"losses": [0.0, 0.0], "scores": []}}
    assert html_of(dataclasses.replace(REPORT, training=training)).count("<img") == 3


def test_an_estimate_is_shown_with_its_interval():
    assert shown(Estimate(0.12345, 0.1, 0.2)) == "0.123 [0.100, 0.200]"


def test_a_plain_figure_is_shown_with_three_digits():
    assert shown(12.34567) == "12.346"
