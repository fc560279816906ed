import re

import pytest
from playwright.sync_api import expect

from .person import FIRST, PHONE, pick
from .stub import PAGE

LOW_CONTRAST = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = (colour) => {
        const [r, g, b] = numbers(colour).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const opaque = (colour) => colour.startsWith("rgb") && (numbers(colour)[3] ?? 1) === 1;
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (opaque(colour)) return colour;
        }
        throw new Error("nothing opaque below");
    };
    const low = [];
    for (const element of document.querySelectorAll("body *")) {
        const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!said || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
        if (element.closest(".picture, .badge, .avatar, .visually-hidden, .skip, noscript, option, :disabled"))
            continue;
        const { fill, color } = getComputedStyle(element);
        const [one, other] = [luminance(element.tagName === "text" ? fill : color), luminance(ground(element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (contrast < 4.5) low.push([element.textContent.slice(0, 40), contrast]);
    }
    return low;
}"""


@pytest.fixture(scope="module")
def blank(browser, server):
    """A page for calling the modules; nobody looks at it."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
    yield page
    page.close()


def focused_video(page):
    return page.evaluate("document.activeElement.closest('.card')?.dataset.video")


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_person_can_do_everything_with_the_keyboard(page, stub):
    expect(page.get_by_role("button", name="anna")).to_be_visible()
    page.get_by_label("User id").focus()
    page.keyboard.type("47")
    page.keyboard.press("Enter")
    expect(page.locator(FIRST).first).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Search videos by title")).to_be_focused()
    while focused_video(page) is None:
        page.keyboard.press("Tab")
    videos = page.locator(FIRST).evaluate_all("cards => cards.map(card => card.dataset.video)")
    assert focused_video(page) == videos[0]
    for key, place in [
        ("ArrowRight", 1),
        ("ArrowDown", 5),
        ("ArrowLeft", 4),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
        ("End", 47),
        ("Home", 0),
    ]:
        page.keyboard.press(key)
        assert focused_video(page) == videos[place], key
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".why-panel")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#toast")).to_contain_text("Watched")
    assert str(stub.asked("POST", "/v1/events")[0].body["events"][0]["video_id"]) == videos[1]
    assert focused_video(page) == page.locator(FIRST).nth(1).get_attribute("data-video")


def test_one_card_of_a_shelf_is_reached_by_tab(page):
    pick(page)
    reachable = page.locator("#shelves .shelf").evaluate_all(
        "shelves => shelves.map(shelf => shelf.querySelectorAll('.open[tabindex=\"0\"]').length)"
    )
    assert set(reachable) == {1}


def test_the_focus_can_be_seen(page):
    pick(page)
    page.keyboard.press("/")
    for _ in range(12):
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Tab")


def test_a_slash_in_a_field_is_a_slash(page):
    pick(page)
    page.keyboard.press("/")
    page.keyboard.type("a/b")
    expect(page.get_by_label("Search videos by title")).to_have_value("a/b")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Search videos by title")).to_have_value("")


def test_tabs_follow_the_arrow_keys(page):
    page.get_by_role("tab", name="Watch").focus()
    for key, name in [
        ("ArrowRight", "Operator"),
        ("ArrowRight", "Report"),
        ("ArrowRight", "Watch"),
        ("End", "Report"),
        ("Home", "Watch"),
    ]:
        page.keyboard.press(key)
        tab = page.get_by_role("tab", name=name)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel")).to_have_count(1)
        expect(page.get_by_role("tabpanel", name=name)).to_be_visible()


def test_the_address_names_the_tab(visit):
    page = visit("#operator")
    expect(page.get_by_role("tabpanel", name="Operator")).to_be_visible()


def test_a_phone_shows_all_without_scrolling_sideways(visit):
    page = visit(**PHONE)
    expect(page.get_by_role("button", name="anna")).to_be_visible()
    assert fits(page)
    pick(page)
    assert fits(page)
    page.locator(".why-button").first.click()
    assert fits(page)
    page.locator(f"{FIRST} .open").first.click()
    assert fits(page)
    assert page.evaluate(
        "document.querySelector('#player').scrollWidth <= document.querySelector('#player').clientWidth"
    )
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#panels svg").first).to_be_visible()
    assert fits(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(visit, scheme):
    page = visit(color_scheme=scheme)
    expect(page.get_by_role("button", name="anna")).to_be_visible()
    assert page.evaluate(LOW_CONTRAST) == []
    pick(page)
    page.locator(f"{FIRST} .open").first.click()
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("Watched")
    page.locator(".why-button").first.click()
    assert page.evaluate(LOW_CONTRAST) == []
    page.get_by_role("tab", name="Operator").click()
    expect(page.locator("#panels svg").first).to_be_visible()
    assert page.evaluate(LOW_CONTRAST) == []


def test_the_system_chooses_light_or_dark_until_the_person_does(visit):
    page = visit(color_scheme="dark")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert (dark, light) == ("rgb(18, 20, 24)", "rgb(246, 246, 243)")
    page.get_by_role("button", name="Change between light and dark").click()
    assert page.evaluate(ground) == dark
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Change between light and dark").click()
    assert page.evaluate(ground) == light


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_movement_is_as_the_person_likes(visit, motion, moves):
    page = visit(reduced_motion=motion)
    page.evaluate(
        """() => {
            window.moved = 0;
            const animate = Element.prototype.animate;
            Element.prototype.animate = function (...given) { window.moved += 1; return animate.apply(this, given); };
        }"""
    )
    pick(page)
    page.locator(f"{FIRST} .open").first.click()
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("Watched")
    assert (page.evaluate("window.moved") > 0) == moves


def test_nothing_shifts_while_the_list_comes(visit, stub):
    page = visit()
    expect(page.get_by_role("button", name="anna")).to_be_visible()
    stub.delay_seconds = 2.5  # long enough to be seen; a shift within half a second of a click does not count as one
    page.evaluate(
        """() => {
            window.shift = 0;
            new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
            }).observe({ type: "layout-shift" });
        }"""
    )
    page.get_by_role("button", name="47", exact=True).click()
    expect(page.locator(".skeleton").first).to_be_visible()
    expect(page.locator(FIRST).first).to_be_visible()
    assert page.evaluate("window.shift") < 0.02


def test_the_page_needs_nothing_from_elsewhere(page):
    loaded = page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).origin)")
    assert set(loaded) == {page.evaluate("location.origin")}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("clock(59.6)", "1:00"),
        ("clock(65)", "1:05"),
        ("clock(3723)", "1:02:03"),
        ("age(59)", "just now"),
        ("age(90)", "1 minute ago"),
        ("age(2 * 86400)", "2 days ago"),
        ("words('co_watch')", "Co watch"),
        ("words('7')", "Topic 7"),
        ("count(812.44)", "812.4"),
        ("count(1e7)", "10M"),
        ("milliseconds(9.84)", "9.8 ms"),
        ("milliseconds(19.6)", "20 ms"),
        ("signedSeconds(3.25)", "+3.3 s"),
        ("signedSeconds(-3)", "\N{MINUS SIGN}3.0 s"),
    ],
)
def test_numbers_are_written_for_people(blank, call, said):
    assert blank.evaluate(f"import('./format.js').then((format) => format.{call})") == said


@pytest.mark.parametrize(
    ("video", "said"),
    [
        ("{ channel: 'Atlas', category: 'craft', uploaded_at: 100 }", "Atlas · Craft · 2 hours ago"),
        ("{ channel: '12', category: '7', uploaded_at: null }", "Channel 12 · Topic 7"),
        ("{ channel: null, category: null, uploaded_at: null }", "channel unknown"),
    ],
)
def test_a_video_is_described_by_what_is_known(blank, video, said):
    assert blank.evaluate(f"import('./card.js').then((card) => card.metaOf({video}, 7300))") == said


@pytest.mark.parametrize("path", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_a_source_is_small_and_parses_no_markup(path):
    text = path.read_text()
    assert len(text.splitlines()) < 300
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r"""https?://(?!www\.w3\.org/2000/svg)|@import|url\(""", text)
    if path.suffix == ".html":
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
