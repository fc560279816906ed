"""A real browser, and a stub of the API behind the real page."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from .stub import Stub, create_stub_app

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.fail(f"no browser: none of {', '.join(BROWSERS)} is on the PATH. Install one: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    server = uvicorn.Server(uvicorn.Config(create_stub_app(), port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the stub did not start"
        thread.join(0.01)
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def stub(server: uvicorn.Server) -> Stub:
    server.config.app.state.stub = Stub()
    return server.config.app.state.stub


@pytest.fixture
def address(server: uvicorn.Server) -> str:
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.fixture
def visit(browser: Browser, address: str, stub: Stub) -> Iterator[Callable[..., Page]]:
    """Opens the page as a person with these browser settings; no console may hold an error in the end."""
    problems: list[str] = []
    contexts: list[BrowserContext] = []

    def note(message: ConsoleMessage) -> None:
        failed = re.search(r"status of (\d+)|(net::\w+)", message.text)
        intended = failed and {int(failed[1] or 0), failed[2]} & stub.refused
        sandboxed = message.text.startswith("Blocked script execution in 'about:")  # the report's frame
        if message.type in ("error", "warning") and not (intended or sandboxed):
            problems.append(message.text)

    def visit(fragment: str = "", **settings: Any) -> Page:
        context = browser.new_context(**({"viewport": DESKTOP, "reduced_motion": "reduce"} | settings))
        contexts.append(context)
        context.set_default_timeout(5_000)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address + fragment)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    return visit()
