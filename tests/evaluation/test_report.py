import base64
import dataclasses
import json
import re

import pytest
from matplotlib.figure import Figure

from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.plots import draw_groups
from watchnext.evaluation.reliability import GroupReliability
from watchnext.evaluation.report import Report, shown, write_report

pytestmark = pytest.mark.usefixtures("unchecked_types")

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
    reliability_by_group={
        "video_age": [
            GroupReliability("under 1 day", 1_234, 31.26, 26.04, Estimate(1.2, 1.1, 1.3)),
            GroupReliability("older <i>", 1, 4.0, 0.0, Estimate(NAN, NAN, NAN)),
        ],
        "surface": [GroupReliability("home", 2_000, 18.0, 20.0, Estimate(0.9, 0.8, 1.0))],
    },
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
    assert "<td>weighted loss</td><td>–</td>" in page and "<td>xauc</td><td>–</td>" in page


def test_page_needs_nothing_else(html_of):
    page = html_of(REPORT)
    assert "http://" not in page and "https://" not in page
    assert "<script" not in page and "<link" not in page
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) == 4
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
    page = html_of(dataclasses.replace(REPORT, ranking={}, reliability=[], reliability_by_group={}))
    assert "<h2>Ranking" not in page
    assert page.count("<img") == 2


def test_page_shows_what_was_measured_of_an_approximate_index(html_of):
    curve = [{"recall": 0.5, "recall_p5": 0.3, "p50_ms": 1.0}, {"recall": 0.9, "recall_p5": 0.8, "p50_ms": 4.0}]
    report = dataclasses.replace(REPORT, index_curve=curve)
    page = html_of(report)
    assert "<h2>Index" in page and page.count("<img") == 5
    assert figures_of(report)["index_curve"] == curve
    assert "<h2>Index" not in html_of(REPORT)


def test_page_without_deciles_has_no_picture_of_them(html_of):
    page = html_of(dataclasses.replace(REPORT, reliability=[]))
    assert "<h2>Ranking" in page
    assert page.count("<img") == 3


def test_json_has_every_group_and_null_where_nobody_watched():
    groups = figures_of(REPORT)["reliability_by_group"]
    assert groups["surface"] == [
        {
            "name": "home",
            "num_impressions": 2_000,
            "expected_watch_seconds": 18.0,
            "watch_seconds": 20.0,
            "ratio": {"value": 0.9, "low": 0.8, "high": 1.0},
        }
    ]
    assert [one["ratio"]["value"] for one in groups["video_age"]] == [1.2, None]


def test_page_has_a_row_for_every_group(html_of):
    page = html_of(REPORT)
    assert "<th>video age</th>" in page and "<th>surface</th>" in page
    rows = [
        re.findall(r"<td>(.*?)</td>", row)
        for row in page.split("<h3>Calibration")[1].split("</table>")[0].split("</tr>")
    ]
    assert [row for row in rows if row] == [
        ["under 1 day", "1,234", "31.3", "26.0", "1.200 [1.100, 1.300]"],
        ["older &lt;i&gt;", "1", "4.0", "0.0", "–"],
        ["home", "2,000", "18.0", "20.0", "0.900 [0.800, 1.000]"],
    ]


def test_page_without_groups_has_no_table_of_them(html_of):
    page = html_of(dataclasses.replace(REPORT, reliability_by_group={}))
    assert "<h2>Ranking" in page and "Calibration by group" not in page
    assert page.count("<img") == 3


def drawn(tables: dict[str, list[GroupReliability]]) -> Figure:
    figure = Figure()
    draw_groups(figure, tables)
    return figure


def test_a_picture_of_groups_has_a_panel_for_each_kind_and_a_line_for_each_group():
    panels = drawn(REPORT.reliability_by_group).axes
    assert [panel.get_title(loc="left") for panel in panels] == ["video age", "surface"]
    labels = [[label.get_text() for label in panel.get_yticklabels()] for panel in panels]
    assert labels == [["under 1 day", "older <i>"], ["home"]]
    (ends,) = [line.get_segments() for line in panels[1].collections]
    assert ends[0].tolist() == [[0.8, 0.0], [1.0, 0.0]]
    # The first group is on top.
    low, high = panels[0].get_ylim()
    assert low > high


def test_a_picture_of_groups_shows_any_value_of_a_log(html_of):
    ratio = Estimate(1.0, 0.9, 1.1)
    rows = [GroupReliability(name, 1, 1.0, 1.0, ratio) for name in (r"$\nonsense$", "https://example.org/a/long/page")]
    html_of(dataclasses.replace(REPORT, reliability_by_group={"surface": rows}))
    labels = [label.get_text() for label in drawn({"surface": rows}).axes[0].get_yticklabels()]
    assert labels[1] == "https://example.org/a/l…"


@pytest.mark.parametrize(
    ("interval", "limits"),
    [((0.99, 1.01), (0.93, 1.07)), ((0.5, 1.5), (0.48, 1.52)), ((0.01, 40.0), (0.0, 3.0)), ((NAN, NAN), (0.93, 1.07))],
)
def test_a_picture_of_groups_holds_1_and_all_intervals_that_are_not_far_off(interval, limits):
    rows = [GroupReliability("one", 1, 1.0, 1.0, Estimate(1.0, *interval))]
    assert drawn({"surface": rows}).axes[0].get_xlim() == pytest.approx(limits)


def test_page_without_lists_has_no_retrieval(html_of):
    page = html_of(dataclasses.replace(REPORT, retrieval={}))
    assert "<h2>Retrieval" not in page


def test_a_fit_with_nothing_to_lose_is_drawn(html_of):
    training = {"retrieval early": {"losses": [0.0, 0.0], "scores": []}}
    assert html_of(dataclasses.replace(REPORT, training=training)).count("<img") == 4


def test_an_estimate_is_shown_with_its_interval():
    assert shown(Estimate(0.12345, 0.1, 0.2)) == "0.123 [0.100, 0.200]"


@pytest.mark.parametrize("value", [NAN, float("inf"), Estimate(NAN, NAN, NAN)])
def test_what_is_not_known_is_shown_as_a_dash(value):
    assert shown(value) == "–"


def test_an_interval_that_is_not_known_is_shown_as_dashes():
    assert shown(Estimate(0.5, NAN, NAN)) == "0.500 [–, –]"


def test_a_plain_figure_is_shown_with_three_digits():
    assert shown(12.34567) == "12.346"
