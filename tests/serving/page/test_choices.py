import re

import pytest
from playwright.sync_api import expect

from .person import FIRST, pick, shown, start_as_nobody, watch
from .stub import VIDEOS


def test_a_search_shows_titles_and_is_an_event(page, stub):
    pick(page)
    page.get_by_label("Search videos by title").fill("lighthouse")
    page.keyboard.press("Enter")
    results = page.locator("#found .card")
    expect(page.get_by_role("heading", name="Results for “lighthouse”")).to_be_visible()
    assert all("lighthouse" in title for title in results.locator("h3").all_text_contents())
    expect(results.get_by_role("button", name=re.compile("^Why"))).to_have_count(0)
    expect(page.locator("#past li").first).to_contain_text("“lighthouse”")
    [event] = stub.asked("POST", "/v1/events")[0].body["events"]
    assert (event["kind"], event["query"], event["user_id"]) == ("search", "lighthouse", "47")
    page.get_by_role("button", name="Close the results").click()
    expect(results).to_have_count(0)


def test_a_search_without_results_says_so(page):
    pick(page)
    page.get_by_label("Search videos by title").fill("zeppelin")
    page.keyboard.press("Enter")
    expect(page.locator("#found")).to_contain_text("No title has these words.")


def test_a_found_video_can_be_watched_without_a_place(page, stub):
    pick(page)
    page.get_by_label("Search videos by title").fill("part 5")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Searched")
    unlisted = next(
        place
        for place in range(page.locator("#found .card").count())
        if int(page.locator("#found .card").nth(place).get_attribute("data-video")) not in shown(page)
    )
    page.locator("#found .card .open").nth(unlisted).click()
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("Watched")
    event = stub.asked("POST", "/v1/events")[-1].body["events"][0]
    assert not {"position", "page_id", "clicked"} & set(event)


def test_a_blocked_video_goes_and_comes_back(page, stub):
    pick(page)
    video_id = shown(page)[0]
    page.locator(FIRST).first.get_by_role("button", name=re.compile("^Block")).click()
    expect(page.locator("#toast")).to_contain_text("Blocked")
    assert video_id not in shown(page)
    path = f"/v1/videos/{video_id}/block"
    assert stub.asked("POST", path)[0].body == {"user_id": "47"}
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(f'{FIRST}[data-video="{video_id}"]')).to_be_visible()
    assert stub.asked("DELETE", path)[0].body == {"user_id": "47"}


def test_a_blocked_video_leaves_the_results_of_a_search(page):
    pick(page)
    page.get_by_label("Search videos by title").fill("lighthouse")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Searched")
    found = page.locator("#found .card")
    blocked = found.first.get_attribute("data-video")
    found.first.get_by_role("button", name=re.compile("^Block")).click()
    expect(page.locator(f'.card[data-video="{blocked}"]')).to_have_count(0)
    expect(found.first).to_be_visible()


def test_what_nobody_blocks_is_hidden_in_the_page_only(page, stub):
    start_as_nobody(page)
    video_id = shown(page)[0]
    page.locator(FIRST).first.get_by_role("button", name=re.compile("^Block")).click()
    expect(page.locator("#toast")).to_contain_text("Blocked")
    assert video_id not in shown(page)
    assert stub.asked("POST", f"/v1/videos/{video_id}/block") == []
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(f'{FIRST}[data-video="{video_id}"]')).to_be_visible()


def test_forgetting_asks_first(page, stub):
    pick(page)
    watch(page)
    page.get_by_role("button", name="Forget me").click()
    page.locator("#question").get_by_role("button", name="Cancel").click()
    assert stub.asked("DELETE", "/v1/users/47") == []
    page.get_by_role("button", name="Forget me").click()
    page.get_by_role("button", name="Forget", exact=True).click()
    expect(page.locator("#toast")).to_have_text("1 event forgotten.")
    expect(page.get_by_label("User id")).to_be_focused()
    assert len(stub.asked("DELETE", "/v1/users/47")) == 1


@pytest.mark.parametrize("start", [pick, start_as_nobody])
def test_topic_and_length_narrow_the_list(page, stub, start):
    start(page)
    page.get_by_role("button", name="Craft", exact=True).click()
    expect(page.get_by_role("button", name="Craft", exact=True)).to_have_attribute("aria-pressed", "true")
    assert {VIDEOS[one]["category"] for one in shown(page)} == {"craft"}
    page.get_by_label("Length").select_option("300")
    expect(page.locator("#person")).not_to_have_attribute("aria-busy", "true")
    asked = next(one for one in reversed(stub.requests) if one.path == "/v1/recommendations")
    if start is pick:
        assert (asked.query["categories"], asked.query["max_duration_seconds"]) == ("craft", "300")
    else:
        assert asked.body["filters"] == {"categories": ["craft"], "max_duration_seconds": 300}


def test_every_place_of_the_list_is_on_one_shelf(page, stub):
    pick(page)
    assert len(shown(page)) == len(set(shown(page))) == 48
    first = [one["video_id"] for one in stub.places([], [], 12, [])]
    assert shown(page)[:12] == first
    assert page.locator("#shelves .shelf").count() >= 3


def test_a_shortened_answer_says_so(page, stub):
    stub.degraded = ["ranking_skipped"]
    pick(page)
    expect(page.locator("#note")).to_have_text("Shortened to answer in time: Ranking skipped.")


def test_changing_the_user_starts_anew(page, stub):
    pick(page)
    watch(page)
    page.get_by_role("button", name="Change user").click()
    pick(page, "103")
    expect(page.locator("#past")).to_contain_text("Nothing yet")
    expect(page.locator(".changed")).to_have_count(0)


def test_an_answer_that_comes_too_late_is_not_shown(page, stub):
    stub.events["47"] = [{"kind": "watch", "video_id": 5, "timestamp": 0}]
    held = []
    page.route(re.compile("user_id=47"), lambda route: held.append(route))
    with page.expect_request(re.compile("user_id=47")):
        page.get_by_role("button", name="47", exact=True).click()
    page.get_by_role("button", name="Change user").click()
    pick(page, "103")
    before = shown(page)
    with page.expect_response(re.compile("user_id=47")):
        held[0].continue_()
    page.evaluate("new Promise(requestAnimationFrame)")
    assert shown(page) == before
    expect(page.locator("#past")).to_contain_text("Nothing yet")
    expect(page.get_by_role("heading", name="User 103")).to_be_visible()
