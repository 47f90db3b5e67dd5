"""A broker, a console and a browser; where one of them can't start, the tests fail: they never skip."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from tests.browser.console_process import RunningConsole, console

from relance.broker import LocalBroker
from relance.kafka.admin import Admin

BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # those that .ci/run looks for
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One node for all tests here."""
    local = LocalBroker(tmp_path_factory.mktemp("broker"), port=0, say=print)
    with local:
        yield local
    local.purge()


@pytest.fixture(scope="session")
def admin(broker: LocalBroker) -> Admin:
    """Relance's own."""
    return Admin(broker.bootstrap, timeout=15.0)


@pytest.fixture(scope="session")
def make_topic(admin: Admin) -> Callable[..., str]:
    """`make_topic(prefix, partitions=1)` makes a topic of a name nobody else has."""
    numbers = itertools.count(1)

    def make(prefix: str, partitions: int = 1) -> str:
        name = f"{prefix}-{os.getpid()}-{next(numbers)}"
        assert admin.ensure_topic(name, partitions)
        return name

    return make


@pytest.fixture(scope="session")
def web(broker: LocalBroker) -> Iterator[RunningConsole]:
    """The console on the shared broker."""
    with console(broker.bootstrap) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For a module only: until it is closed, Playwright's event loop runs in this very thread, and
    other suites could not start theirs."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(f"these tests need a browser ({', '.join(BROWSERS)}): apt-get install chromium")
    with sync_playwright() as playwright:
        # Playwright makes a fresh user data directory for each launch.
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser that has never been anywhere."""
    fresh = chromium.new_context(viewport={"width": 1200, "height": 800})
    fresh.set_default_timeout(15_000)
    yield fresh
    fresh.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which no script may fail and no dialog may open; nothing may be asked of another host."""
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda m: wrong.append(m.text) if "Content Security Policy" in m.text else None)
    page.on(
        "request",
        lambda r: None if r.url.startswith("http://localhost:") else wrong.append(f"asked for {r.url}"),
    )
    yield page
    assert wrong == []
