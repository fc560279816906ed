import pytest
from playwright.sync_api import expect

from .person import FIRST, pick


def token_field(page):
    return page.get_by_role("textbox", name="Token")


def test_the_token_leaves_the_address_and_goes_along(visit, stub):
    stub.token = "secret"
    page = visit("#token=secret")
    expect(page.get_by_role("button", name="anna")).to_be_visible()
    assert "secret" not in page.url
    assert stub.asked("GET", "/v1/users")[0].authorization == "Bearer secret"
    assert page.evaluate("JSON.stringify({ ...localStorage }) + document.cookie") == "{}"
    page.reload()
    expect(page.get_by_role("button", name="anna")).to_be_visible()


def test_a_token_is_asked_for_when_it_is_needed(page, stub):
    stub.token = "secret"
    page.reload()
    page.get_by_label("User id").fill("47")
    page.keyboard.press("Enter")
    expect(page.locator(FIRST).first).to_be_visible()
    expect(page.locator("#question")).to_be_hidden()
    page.locator(f"{FIRST} .open").first.click()
    page.get_by_role("button", name="Watched", exact=True).click()
    token_field(page).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#question-text")).to_contain_text("refused")
    token_field(page).fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Watched")
    sent = stub.asked("POST", "/v1/events")
    assert [one.authorization for one in sent] == [None, "Bearer wrong", "Bearer secret"]
    assert len({one.body["events"][0]["event_id"] for one in sent}) == 1


def test_without_a_token_suggestions_wait_to_be_asked_for(page, stub):
    stub.token = "secret"
    page.reload()
    page.get_by_role("button", name="Show users of the log").click()
    page.keyboard.press("Enter")
    expect(page.locator("#question")).to_be_visible()
    token_field(page).fill("secret")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="anna")).to_be_visible()


def test_a_token_that_is_not_given_is_an_error_with_its_remedy(page, stub):
    stub.token = "secret"
    page.get_by_role("tab", name="Operator").click()
    expect(token_field(page)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("alert")).to_contain_text("this route needs a token Enter a token that the server knows.")
    page.get_by_role("button", name="Try again").click()
    token_field(page).fill("secret")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#panels svg").first).to_be_visible()


@pytest.mark.parametrize(
    ("status", "detail", "said"),
    [
        (404, "this user is not in the log", "this user is not in the log Check what was asked for, pick another user"),
        (422, [{"loc": ["query", "k"], "msg": "too many", "type": "t"}], "query.k: too many Change what was entered."),
        (429, "too many requests", "too many requests Too many requests came from here. Wait a moment"),
        (503, "overloaded", "overloaded The server is busy or still starting. Wait a moment"),
        (500, None, "The server answered 500. The server's log says why."),
    ],
)
def test_an_error_is_shown_with_its_remedy(page, stub, status, detail, said):
    stub.failures["/v1/recommendations"] = (status, detail)
    page.get_by_role("button", name="47", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.locator(".skeleton")).to_have_count(0)
    stub.failures.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(FIRST).first).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_an_event_that_failed_can_be_sent_again_and_counts_once(page, stub):
    pick(page)
    stub.failures["/v1/events"] = (503, "overloaded")
    page.locator(f"{FIRST} .open").first.click()
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("overloaded")
    stub.failures.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#toast")).to_contain_text("Watched")
    assert len({one.body["events"][0]["event_id"] for one in stub.asked("POST", "/v1/events")}) == 1


def test_an_error_can_be_dismissed(page, stub):
    stub.failures["/v1/recommendations"] = (503, "overloaded")
    page.get_by_role("button", name="47", exact=True).click()
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_server_that_is_gone_is_named(visit, stub):
    page = visit()
    page.route("**/v1/recommendations*", lambda route: route.abort())
    stub.refused.add("net::ERR_FAILED")
    page.get_by_role("button", name="47", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer. Check that `watchnext serve` runs")


def test_an_error_stays_with_its_tab(page, stub):
    stub.failures["/v1/recommendations"] = (503, "overloaded")
    page.get_by_role("button", name="47", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("tab", name="Operator").click()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_the_history_waits_for_a_token_and_the_list_does_not(page, stub):
    stub.token = "secret"
    stub.events["47"] = [{"kind": "watch", "video_id": 5, "timestamp": 0, "watch_seconds": 9}]
    page.reload()
    page.get_by_label("User id").fill("47")
    page.keyboard.press("Enter")
    expect(page.locator(FIRST).first).to_be_visible()
    page.get_by_role("button", name="Show the history").click()
    token_field(page).fill("secret")
    page.keyboard.press("Enter")
    expect(page.locator("#past li")).to_have_count(1)
    expect(page.locator("#past")).to_contain_text("0:09")
