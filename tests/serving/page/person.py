"""What a person does on the page."""

from playwright.sync_api import expect

FIRST = "#shelves .card[data-video]"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


def pick(page, user="47"):
    page.get_by_role("button", name=user, exact=True).click()
    expect(page.locator(FIRST).first).to_be_visible()


def start_as_nobody(page):
    page.get_by_role("button", name="Start as nobody").click()
    expect(page.locator(FIRST).first).to_be_visible()


def shown(page):
    return page.locator(FIRST).evaluate_all("cards => cards.map(card => Number(card.dataset.video))")


def watch(page, place=0):
    """Watches a place to the end and gives its video id."""
    video_id = shown(page)[place]
    page.locator(f"{FIRST} .open").nth(place).click()
    page.get_by_role("button", name="Watched", exact=True).click()
    expect(page.locator("#toast")).to_contain_text("Watched")
    return video_id
