import pytest
from playwright.sync_api import expect

from .stub import REPORT


@pytest.fixture
def operator(page):
    """The view, with a clock that goes only when it is told to."""
    page.clock.install()
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#panels svg").first).to_be_visible()
    return page


def fill(page, path="bundles/b-new", share="", variant=""):
    page.get_by_label("Bundle folder").fill(path)
    page.get_by_label("Share of users").fill(share)
    page.get_by_label("Variant").fill(variant)
    page.get_by_role("button", name="Promote", exact=True).click()


def dialog(page):
    return page.locator("#question")


def test_the_tiles_tell_the_state(operator):
    tiles = operator.locator("#tiles")
    for text in (
        "21.4",
        "182.3K in all",
        "9.8 ms",
        "20 ms",
        "0.2 %",
        "3 refused early",
        "96.2 %",
        "97.0 % when tuned",
        "1.04",
    ):
        expect(tiles).to_contain_text(text)
    expect(tiles.locator(".bad")).to_have_count(0)


def test_trouble_is_marked(page, stub):
    healthy = stub.status()
    stub.status = lambda: (
        healthy
        | {
            "requests": healthy["requests"] | {"failed": 2},
            "calibration": {"ratio": 1.5, "watches": 10},
            "variants": [
                healthy["variants"][0] | {"recall_probe": {"recall": 0.8, "tuned_recall": 0.97, "measured_at": 0}}
            ],
        }
    )
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#tiles .bad")).to_have_text(["2", "80.0 %", "1.50"])


def test_charts_are_described_in_words(operator):
    for name in ("Traffic", "Latency", "Latency by stage", "Funnel", "Sources"):
        chart = operator.get_by_role("region", name=name, exact=True).get_by_role("img").last
        expect(chart).to_be_visible()
    expect(operator.get_by_role("img", name="Funnel: Catalogue 10M videos; Candidates 812.4 videos")).to_be_visible()
    expect(operator.get_by_role("img", name="User vector 2.5 · 5.0 · 8.0")).to_be_visible()


def test_a_longer_stage_has_a_longer_bar(operator):
    chart = operator.locator("#panel-latency-by-stage svg[role=img]")
    widths = {
        name: chart.locator(f"rect.mark-{name}").evaluate_all(
            "marks => marks.map(mark => mark.getBoundingClientRect().width)"
        )
        for name in ("p50", "p95", "p99")
    }
    # user vector: 2.5, 5 and 8 ms
    assert widths["p95"][2] / widths["p50"][2] == pytest.approx(2, rel=0.01)
    assert widths["p99"][2] / widths["p50"][2] == pytest.approx(3.2, rel=0.01)


def test_the_pointer_reads_a_moment(operator, stub):
    panel = operator.locator("#panel-traffic")
    last = panel.locator(".legend").text_content()
    first = f"requests per second {stub.status()['history'][0]['per_second']:.1f}"
    assert last != first
    box = panel.locator("svg").last.bounding_box()
    operator.mouse.move(box["x"] + 46, box["y"] + 60)
    expect(panel.locator(".legend")).to_have_text(first)
    operator.mouse.move(0, 0)
    expect(panel.locator(".legend")).to_have_text(last)


def test_the_status_is_read_again_while_it_is_looked_at(operator, stub):
    with operator.expect_response("**/admin/status"):
        operator.clock.run_for(2500)
    asked = len(stub.asked("GET", "/admin/status"))
    operator.get_by_role("tab", name="Watch").click()
    operator.clock.run_for(60_000)
    assert len(stub.asked("GET", "/admin/status")) == asked


def test_a_young_server_has_no_history_yet(page, stub):
    young = stub.status() | {"history": [], "calibration": None, "previous": None, "latency_ms": {}, "sources": []}
    young["variants"][0]["recall_probe"] = young["variants"][1]["recall_probe"] = None
    stub.status = lambda: young
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#panel-traffic")).to_contain_text("Nothing to draw yet")
    expect(page.locator("#tiles")).to_contain_text("not probed yet")
    expect(page.get_by_role("button", name="Roll back")).to_be_disabled()
    expect(page.locator("#previous")).to_have_text("Nothing to roll back to.")


def test_versions_are_listed(operator):
    rows = operator.locator("#versions tbody tr")
    expect(rows).to_have_count(2)
    for text in (
        "main",
        "90 %",
        "b-2024-06-01",
        "bundles/b-2024-06-01",
        "2023-11-26",
        "10,000,000",
        "cells",
        "41",
        "1 day ago",
    ):
        expect(rows.first).to_contain_text(text)


def test_promotion_is_confirmed(operator, stub):
    fill(operator)
    expect(dialog(operator)).to_contain_text("bundles/b-new will be loaded, checked, and then serve all users.")
    dialog(operator).get_by_role("button", name="Cancel").click()
    assert stub.asked("POST", "/admin/bundle") == []
    fill(operator)
    dialog(operator).get_by_role("button", name="Promote").click()
    expect(operator.locator("#toast")).to_have_text("b-new serves now.")
    assert stub.asked("POST", "/admin/bundle")[0].body == {"path": "bundles/b-new"}
    expect(operator.locator("#versions tbody tr").first).to_contain_text("b-new")
    expect(operator.get_by_label("Bundle folder")).to_have_value("")
    fill(operator)
    operator.keyboard.press("Escape")  # what was answered before must not count again
    expect(dialog(operator)).to_be_hidden()
    assert len(stub.asked("POST", "/admin/bundle")) == 1


def test_a_share_and_a_variant_go_along(operator, stub):
    fill(operator, share="0.25", variant="wider")
    expect(dialog(operator)).to_contain_text("serve 25 % of the users")
    dialog(operator).get_by_role("button", name="Promote").click()
    expect(operator.locator("#toast")).to_contain_text("b-new")
    assert stub.asked("POST", "/admin/bundle")[0].body == {"path": "bundles/b-new", "share": 0.25, "variant": "wider"}


def test_a_refused_promotion_stays_on_the_page(operator, stub):
    stub.failures["/admin/bundle"] = (422, "the bundle is damaged: towers.safetensors. Copy it again.")
    fill(operator)
    dialog(operator).get_by_role("button", name="Promote").click()
    expect(operator.get_by_role("alert")).to_contain_text("the bundle is damaged")
    with operator.expect_response("**/admin/status"):
        operator.clock.run_for(2500)
    expect(operator.get_by_role("alert")).to_be_visible()
    expect(operator.get_by_label("Bundle folder")).to_have_value("bundles/b-new")


def test_rolling_back_is_confirmed(operator, stub):
    operator.get_by_role("button", name="Roll back").click()
    expect(dialog(operator)).to_contain_text("b-2024-05-25 in bundles/b-2024-05-25 will serve again.")
    operator.keyboard.press("Escape")
    assert stub.asked("POST", "/admin/rollback") == []
    operator.get_by_role("button", name="Roll back").click()
    dialog(operator).get_by_role("button", name="Roll back").click()
    expect(operator.locator("#toast")).to_have_text("b-2024-05-25 serves now.")
    expect(operator.get_by_role("button", name="Roll back")).to_be_disabled()


def test_the_report_is_shown_with_its_style_and_without_its_scripts(page, stub):
    stub.report = REPORT
    page.get_by_role("tab", name="Report").click()
    heading = page.frame_locator("#report-frame").get_by_role("heading", name="What the stages do")
    expect(heading).to_have_css("color", "rgb(1, 2, 3)")
    drawn = page.frame_locator("#report-frame").get_by_alt_text("a picture")
    assert drawn.evaluate("picture => picture.naturalWidth") == 1
    expect(page.locator("#report-word")).to_be_hidden()
    assert page.evaluate("window.stolen") is None


def test_a_missing_report_is_said(page):
    page.get_by_role("tab", name="Report").click()
    expect(page.locator("#report-word")).to_contain_text(
        "There is no evaluation report yet. `watchnext evaluate` writes one"
    )
    expect(page.locator("#report-frame")).to_be_hidden()


def test_a_report_that_cannot_be_read_is_an_error(page, stub):
    stub.failures["/admin/report"] = (500, "out of memory")
    page.get_by_role("tab", name="Report").click()
    expect(page.get_by_role("alert")).to_contain_text("out of memory")
    expect(page.locator("#report-word")).to_have_text("The report could not be read.")
