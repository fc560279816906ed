"""Takes the pictures of the page that stand in docs/: a real server on a bundle, a real browser.

python scripts/page_pictures.py BUNDLE [USER]
"""

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from watchnext.serving.http import create_app
from watchnext.serving.server import ServerSettings

DOCS = Path(__file__).parent.parent / "docs"
TOKEN = "a-token-for-pictures"
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 780}


def main() -> None:
    """Serves, visits, takes pictures."""
    bundle, user = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "3"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        (Path(state) / "token").write_text(TOKEN)
        app = create_app(bundle, ServerSettings(Path(state)))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/#token={TOKEN}"
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            take(browser, address, user)
            browser.close()
        server.should_exit = True
        thread.join()


def take(browser: Browser, address: str, user: str) -> None:
    """Visits as a person and as an operator, by day and by night, at a desk and on a phone."""
    for name, scheme, size in (("light", "light", DESKTOP), ("dark", "dark", DESKTOP), ("phone", "light", PHONE)):
        page = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        visit(page, address, user)
        if name == "light":
            page.locator("#shelves .card .open").nth(1).click()
            page.get_by_role("button", name="Watched", exact=True).click()
            page.wait_for_timeout(1500)
        if name == "dark":
            page.get_by_role("button", name="Why").nth(1).click()
            page.wait_for_timeout(300)
        page.screenshot(path=DOCS / f"page-{name}.png")
        if name == "dark":
            page.get_by_role("tab", name="Operator").click()
            page.wait_for_timeout(6000)
            page.screenshot(path=DOCS / "page-operator.png", full_page=True)
        page.close()


def visit(page: Page, address: str, user: str) -> None:
    """Opens the page as a user."""
    page.goto(address)
    page.get_by_label("User id").fill(user)
    page.keyboard.press("Enter")
    page.locator("#shelves .card[data-video]").first.wait_for()
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main()
