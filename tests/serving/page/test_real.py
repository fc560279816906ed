"""The page before the server that it is made for: a person, and an operator, on the small world's bundle."""

import shutil
import threading

import pytest
import uvicorn
from playwright.sync_api import expect

from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

from .person import FIRST, shown, start_as_nobody, watch

pytestmark = pytest.mark.usefixtures("unchecked_types")
TOKEN = "the-token-of-this-test"


@pytest.fixture(scope="module")
def server(small_run, tmp_path_factory):
    """Stands where the stub does elsewhere."""
    state = tmp_path_factory.mktemp("state")
    (state / "token").write_text(TOKEN)
    app = create_app(small_run.bundle, ServerSettings(state))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        thread.join(0.01)
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def person(visit):
    page = visit(f"#token={TOKEN}")
    page.get_by_label("User id").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator(FIRST).first).to_be_visible()
    return page


def test_a_watch_changes_the_list_and_stands_in_the_history(person):
    before = shown(person)
    watched = watch(person)
    expect(person.locator("#past")).to_contain_text("just now")
    assert watched in before and watched not in shown(person)


def test_why_names_sources_watches_and_what_the_ranker_made_of_it(person):
    person.get_by_role("button", name="Why").first.click()
    why = person.locator(".why-panel")
    expect(why).to_be_visible()
    assert len(why.inner_text().splitlines()) > 3


def test_a_blocked_video_does_not_come_back(person):
    blocked = shown(person)[0]
    person.get_by_role("button", name="Block").first.click()
    expect(person.locator(f'{FIRST}[data-video="{blocked}"]')).to_have_count(0)
    person.reload()
    person.get_by_label("User id").fill("3")
    person.keyboard.press("Enter")
    expect(person.locator(FIRST).first).to_be_visible()
    assert blocked not in shown(person)


def test_nobody_in_particular_gets_a_list_and_changes_it(visit, stub):
    stub.refused.add(401)  # without a token nobody is suggested
    page = visit()
    start_as_nobody(page)
    before = shown(page)
    watched = watch(page)
    assert watched in before and watched not in shown(page)


def test_the_operator_sees_what_serves_and_swaps_it(visit, small_run, tmp_path):
    other = shutil.copytree(small_run.bundle, tmp_path / "other")
    page = visit(f"#token={TOKEN}")
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#panels svg").first).to_be_visible()
    page.get_by_label("Bundle folder").fill(str(other))
    page.get_by_role("button", name="Promote", exact=True).click()
    page.locator("#question").get_by_role("button", name="Promote").click()
    expect(page.get_by_text(str(other)).first).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Roll back").click()
    page.locator("#question").get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("cell", name=str(small_run.bundle), exact=True)).to_be_visible(timeout=30_000)
