import re

from playwright.sync_api import expect

from .person import FIRST, pick, shown, start_as_nobody, watch
from .stub import HOSTILE, NOW, VIDEOS


def test_a_suggested_user_gets_their_list(page, stub):
    pick(page)
    [asked] = stub.asked("GET", "/v1/recommendations")
    assert asked.query == {"user_id": "47", "k": "48", "explain": "true"}
    assert sorted(shown(page)) == sorted(one["video_id"] for one in stub.places([], [], 48, []))
    expect(page.get_by_role("heading", name="User 47")).to_be_focused()
    expect(page.get_by_label("User id")).to_be_hidden()


def test_a_typed_user_gets_their_list(page, stub):
    page.get_by_label("User id").fill("some body &+%25?")
    page.keyboard.press("Enter")
    expect(page.locator(FIRST).first).to_be_visible()
    assert stub.asked("GET", "/v1/recommendations")[0].query["user_id"] == "some body &+%25?"


def test_a_card_tells_title_channel_age_length_and_expected_time(page, stub):
    pick(page)
    place = next(one for one in stub.places([], [], 48, []) if one["title"] and one["uploaded_at"])
    card = page.locator(f'{FIRST}[data-video="{place["video_id"]}"]')
    length, expected = (
        f"{round(s) // 60}:{round(s) % 60:02}" for s in (place["duration_seconds"], place["expected_watch_seconds"])
    )
    for text in (place["title"], place["channel"], "ago", length, f"{expected} expected"):
        expect(card).to_contain_text(text)
    expect(card.locator(".bar .fill")).to_have_attribute("style", re.compile(r"width: [\d.]+%"))


def test_a_missing_title_shows_the_id_and_the_channel(page):
    pick(page)
    video_id = next(one for one in shown(page) if VIDEOS[one]["title"] is None)
    card = page.locator(f'{FIRST}[data-video="{video_id}"]')
    expect(card.get_by_role("heading")).to_have_text(f"Video {video_id}")
    expect(card).to_contain_text(VIDEOS[video_id]["channel"])


def test_a_hostile_title_stays_text(page):
    pick(page)
    watched = shown(page).index(3)
    expect(page.locator(f'{FIRST}[data-video="3"] h3')).to_have_text(HOSTILE)
    watch(page, watched)
    expect(page.locator("#toast")).to_contain_text(HOSTILE)
    expect(page.locator("#past")).to_contain_text(HOSTILE)
    page.get_by_role("button", name=re.compile("^Why")).first.click()
    expect(page.locator(".why-panel")).to_contain_text(HOSTILE)
    assert page.evaluate("window.stolen") is None
    assert page.locator("main img, dialog img").count() == 0


def test_the_same_video_has_the_same_picture_and_others_differ(page):
    pick(page)
    drawn = page.evaluate(
        """async () => {
            const { picture } = await import("./picture.js");
            const one = { video_id: 1, title: "A title", channel: "c", category: "k" };
            return [one, { ...one }, { ...one, video_id: 2 }, { ...one, category: "other" }, { ...one, channel: "d" }]
                .map((video) => picture(video).outerHTML);
        }"""
    )
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_a_watch_is_sent_and_changes_the_list_at_once(page, stub):
    pick(page)
    before = shown(page)
    watched = watch(page, 1)
    [event] = stub.asked("POST", "/v1/events")[0].body["events"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", event.pop("event_id"))
    assert event == {
        "kind": "watch", "user_id": "47", "video_id": watched, "watch_seconds": VIDEOS[watched]["duration_seconds"],
        "completed": True, "clicked": True, "position": 2, "page_id": stub.answers[0],
    }  # fmt: skip
    after = shown(page)
    assert watched not in after
    new = set(after) - set(before)
    assert new
    marked = page.locator(".changed").evaluate_all("cards => cards.map(card => Number(card.dataset.video))")
    assert set(marked) == new
    expect(page.locator("#toast")).to_contain_text(f"{len(new)} new")
    expect(page.locator("#past li").first).to_contain_text(VIDEOS[watched]["title"])


def test_half_a_watch_is_half_the_seconds_and_not_completed(page, stub):
    pick(page)
    video_id = shown(page)[0]
    page.locator(f"{FIRST} .open").first.click()
    page.get_by_label("How much was watched").fill("50")
    expect(page.locator("#watched-output")).to_contain_text("50 %")
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("Watched")
    [event] = stub.asked("POST", "/v1/events")[0].body["events"]
    assert event["watch_seconds"] == VIDEOS[video_id]["duration_seconds"] / 2
    assert event["completed"] is False


def test_a_cancelled_watch_sends_nothing(page, stub):
    pick(page)
    watch(page)  # what was answered before must not count again
    page.locator(f"{FIRST} .open").first.click()
    page.keyboard.press("Escape")
    expect(page.locator("#player")).to_be_hidden()
    page.locator(f"{FIRST} .open").first.click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#player")).to_be_hidden()
    assert len(stub.asked("POST", "/v1/events")) == 1


def test_a_similar_video_can_be_watched_from_the_player(page, stub):
    pick(page)
    page.locator(f"{FIRST} .open").first.click()
    similar = page.locator("#similar-row button").nth(1)
    title = similar.locator(".tile-title").text_content()
    similar.click()
    expect(page.locator("#player-title")).to_have_text(title)
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.locator("#past li").first).to_contain_text(title)


def test_similar_videos_of_another_video_are_not_shown(page, stub):
    pick(page)
    first = shown(page)[0]
    other = next(n for n, one in enumerate(shown(page)) if VIDEOS[one]["category"] != VIDEOS[first]["category"])
    held = []
    page.route(f"**/v1/videos/{first}/similar*", lambda route: held.append(route))
    with page.expect_request(f"**/v1/videos/{first}/similar*"):
        page.locator(f"{FIRST} .open").first.click()
    page.keyboard.press("Escape")
    page.locator(f"{FIRST} .open").nth(other).click()
    expect(page.locator("#similar-row button").first).to_be_visible()
    similar = page.locator("#similar-row").text_content()
    with page.expect_response(f"**/v1/videos/{first}/similar*"):
        held[0].continue_()
    page.evaluate("new Promise(requestAnimationFrame)")
    assert page.locator("#similar-row").text_content() == similar


def test_nobody_keeps_the_history_in_the_page(page, stub):
    start_as_nobody(page)
    first, second = watch(page), watch(page)
    page.get_by_label("Search videos by title").fill("garden")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Searched")
    bodies = [one.body for one in stub.asked("POST", "/v1/recommendations")]
    assert bodies[0] == {"history": [], "searches": [], "k": 48, "explain": True, "filters": {}}
    assert [one["video_id"] for one in bodies[-1]["history"]] == [first, second]
    assert [one["query"] for one in bodies[-1]["searches"]] == ["garden"]
    for one in bodies[-1]["history"] + bodies[-1]["searches"]:
        assert NOW <= one["timestamp"] < NOW + 60
    assert stub.asked("POST", "/v1/events") == []
    kept = page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href])")
    assert "garden" not in kept and "history" not in kept


def test_the_past_of_nobody_is_gone_after_forgetting(page, stub):
    start_as_nobody(page)
    watch(page)
    page.get_by_role("button", name="Forget me").click()
    page.get_by_role("button", name="Forget", exact=True).click()
    expect(page.locator("#toast")).to_have_text("1 event forgotten.")
    start_as_nobody(page)
    assert stub.asked("POST", "/v1/recommendations")[-1].body["history"] == []


def test_why_opens_in_place_and_escape_closes_it(page, stub):
    pick(page)
    watched = watch(page)
    place = next(one for one in stub.places([watched], [], 48, []) if one["video_id"] == shown(page)[0])
    why = page.locator(f"{FIRST} .why-button").first
    why.click()
    expect(why).to_have_attribute("aria-expanded", "true")
    panel = page.locator(".why-panel")
    expect(panel).to_contain_text(VIDEOS[watched]["title"])
    expect(panel).to_contain_text("50 %")
    assert panel.locator(".chip").count() == len(place["sources"])
    for feature in place["why"]["features"]:
        sign = "+" if feature["seconds"] >= 0 else "\N{MINUS SIGN}"
        expect(panel).to_contain_text(f"{sign}{abs(feature['seconds']):.1f} s")
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    expect(why).to_be_focused()
    expect(why).to_have_attribute("aria-expanded", "false")


def test_one_why_closes_another(page):
    pick(page)
    for place in (0, 1):
        page.locator(f"{FIRST} .why-button").nth(place).click()
    expect(page.locator(".why-panel")).to_have_count(1)
    expect(page.locator('[aria-expanded="true"]')).to_have_count(1)
    page.locator(f"{FIRST} .why-button").nth(1).click()
    expect(page.locator(".why-panel")).to_have_count(0)


def test_the_history_holds_what_was_watched_and_not_what_was_shown(page, stub):
    watched = {"kind": "watch", "video_id": 5, "timestamp": NOW - 7200, "watch_seconds": 70, "completed": False}
    stub.events["47"] = [watched, watched | {"kind": "impression", "video_id": 6, "watch_seconds": 0}]
    pick(page)
    expect(page.locator("#past li")).to_have_count(1)
    for text in (VIDEOS[5]["title"], "1:10", "2 hours ago"):
        expect(page.locator("#past li")).to_contain_text(text)


def test_a_watched_video_keeps_its_picture(page):
    pick(page)
    colours = "picture => picture.style.background"
    before = page.locator(f"{FIRST} .picture").first.evaluate(colours)
    watch(page)
    assert page.locator("#past .picture").first.evaluate(colours) == before
