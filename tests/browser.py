"""A real browser, where there is one: Chromium as the system installs it, driven by Playwright."""

from __future__ import annotations

import contextlib
import shutil
import time
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    """Skips, with the reason, where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (extra test)")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield started
        started.close()


class Watched:
    """A page with what it complained of and asked for.

    Attributes:
        page: Playwright's.
        complaints: console errors and uncaught exceptions.
        asked: addresses of all requests.
    """

    def __init__(self, page):
        self.page, self.complaints, self.asked = page, [], []
        page.on(
            "console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text)
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def hosts(self):
        """Where requests went that left the page."""
        parts = [urlsplit(url) for url in self.asked]
        return {part.netloc for part in parts if part.scheme not in ("data", "blob", "file")}


@contextlib.contextmanager
def opened(browser, url, **options):
    """A page of that address; it must neither complain nor ask another machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(10_000)
    watched = Watched(context.new_page())
    watched.page.goto(url)
    try:
        yield watched
        assert not watched.complaints
        assert watched.hosts() <= {urlsplit(url).netloc}
    finally:
        context.close()


def wait(page, expression, seconds=10.0):
    """Until an expression is true in the page; asked from outside, as the page's policy forbids evaluation
    within."""
    until = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < until, f"not true within {seconds:g} s: {expression}"
        page.wait_for_timeout(20)
