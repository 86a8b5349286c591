"""The report in a real browser: no error, nothing missing, readable on a phone, fit for those who don't see it."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import CHROMIUM, INSIDE
from made_lake import make
from made_report import inputs_of
from playwright.sync_api import sync_playwright

from mammoflow.reports import report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    return "file://" + report.write(inputs_of(make(folder / "lake")), str(folder / "report.html"))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("requestfailed", lambda request: page.said.append(request.url))
    page.on("request", lambda request: None if request.url.startswith(INSIDE) else page.said.append(request.url))
    page.goto(url)
    yield page
    page.close()


def test_nothing_fails_and_everything_is_there(page):
    assert page.said == []
    broken = page.eval_on_selector_all("img", "all => all.filter(one => !one.naturalWidth).map(one => one.alt)")
    assert broken == []
    targets = page.eval_on_selector_all("nav a", "all => all.map(one => one.getAttribute('href'))")
    assert len(targets) >= 8
    for target in targets:
        page.click(f"nav a[href='{target}']")
        assert page.locator(target).count() == 1
    assert page.said == []


def test_a_phone_shows_it_without_sideways_scrolling(page):
    page.set_viewport_size({"width": 390, "height": 844})
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    small = page.eval_on_selector_all(
        "p, td, th, figcaption", "all => all.filter(one => parseFloat(getComputedStyle(one).fontSize) < 12).length"
    )
    assert small == 0


def test_axe_finds_nothing_to_complain_of(page):
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
