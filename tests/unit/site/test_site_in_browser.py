"""The results page in a real browser: sorting, filtering, the threshold, a case; no error, nothing from elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import CHROMIUM, INSIDE
from made_site import MadeSite, build
from playwright.sync_api import Browser, Page, sync_playwright

from mammoflow.ensemble import ensemble
from mammoflow.metrics import operating_points

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSite:
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, made: MadeSite) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.on("request", lambda request: None if request.url.startswith(INSIDE) else said.append(request.url))
    page.goto(f"file://{made.site.url}")
    yield page
    page.close()
    assert said == []


def open_run(page: Page) -> None:
    page.get_by_role("link", name="ensemble, greedy").first.wait_for()
    page.locator("tr[data-registered=yes] a").first.click()
    page.locator("#roc .main-svg").first.wait_for()


def column(page: Page, at: int) -> list[str]:
    visible = "rows => rows.filter(row => !row.hidden).map(row => row.cells[%d].dataset.value)"
    found: list[str] = page.eval_on_selector_all("#models tbody tr", visible % at)
    return found


def test_the_leaderboard_sorts_and_filters(page: Page, made: MadeSite) -> None:
    every = column(page, 4)
    assert [float(each) for each in every] == sorted(map(float, every), reverse=True)
    page.get_by_role("button", name="test", exact=True).click()
    assert column(page, 5) == sorted(column(page, 5), key=float, reverse=True)
    page.get_by_role("button", name="test", exact=True).click()
    assert column(page, 5) == sorted(column(page, 5), key=float)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.select_option("#kind", "two-step")
    assert len(column(page, 0)) == 1
    page.select_option("#kind", "")
    page.check("#registered")
    assert sorted(column(page, 8)) == ["mammoflow/1", "mammoflow/2"]
    assert page.locator("#count").inner_text() == f"2 of {len(made.site.rows)} models"
    page.uncheck("#registered")
    page.fill("#text", "Resnet-VGG")
    assert set(column(page, 1)) == {"Resnet-VGG"}


def test_the_slider_counts_as_python_does(page: Page, made: MadeSite) -> None:
    (run,) = (each for each in made.runs() if each.version)
    frozen = run.frozen
    labels, scores = ensemble.columns(ensemble.average(run.test_scores(), frozen))
    open_run(page)
    begun = counts(page)
    for threshold in (frozen.cutoff, 0.0, 0.4, 0.613, 1.0):
        if threshold != frozen.cutoff:
            page.fill("#threshold", str(threshold))
        found = operating_points.at_cutoff(labels, scores, threshold)
        tp, tn = found.sensitivity.hits, found.specificity.hits
        assert counts(page) == {"tp": tp, "fn": found.sensitivity.of - tp, "tn": tn, "fp": found.specificity.of - tn}
        ends = f"{found.sensitivity.interval.low:.1%} to {found.sensitivity.interval.high:.1%}"
        assert ends in page.locator("#sensitivity-more").inner_text()
        assert outcomes(page) <= {name for name, number in counts(page).items() if number}
        drawn = page.evaluate("[document.getElementById('roc').data.at(-1)].map(each => [each.x[0], each.y[0]])[0]")
        assert drawn == pytest.approx([1 - found.specificity.value, found.sensitivity.value])
    page.click("#reset")
    assert counts(page) == begun


def test_the_chart_of_scores_holds_every_film_also_one_of_score_1(page: Page) -> None:
    open_run(page)
    drawn = "document.getElementById('spread').calcdata.flat().reduce((sum, bar) => sum + (bar.s || 0), 0)"
    assert page.evaluate(drawn) == page.evaluate("data.scores.length")


def test_films_are_called_by_the_cut_off_itself_not_by_the_sliders_step(page: Page) -> None:
    open_run(page)
    for script in ("data.cases[0].score", "data.cases[0].score + 1e-6"):
        page.evaluate(f"data.cutoff = {script}; reset()")
        page.select_option("#order", "low")
        page.select_option("#order", "high")
        wanted = "positive" if "+" not in script else "negative"
        assert page.locator(".case .outcome").first.inner_text().endswith(wanted)


def outcomes(page: Page) -> set[str]:
    """Return which outcomes the films have that are shown."""
    return {"".join(word[0] for word in text.lower().split()) for text in page.locator(".outcome").all_inner_texts()}


def counts(page: Page) -> dict[str, int]:
    return {name: int(page.locator(f"#{name}").inner_text()) for name in ("tp", "fn", "tn", "fp")}


def test_a_case_opens_and_follows_the_threshold(page: Page) -> None:
    open_run(page)
    assert page.locator(".case:visible").count() == 6
    page.fill("#threshold", "0")
    assert set(page.locator(".outcome").all_inner_texts()) == {"True positive", "False positive"}
    page.select_option("#outcome", "fp")
    first = page.locator(".case:visible").first
    assert first.inner_text().startswith("False positive")
    first.click()
    dialog = page.get_by_role("dialog")
    assert "False positive" in dialog.inner_text()
    assert "benign mass" in dialog.inner_text()
    assert dialog.locator("tbody tr").count() == 3, "the ensemble and both members"
    assert dialog.locator("img").evaluate("image => image.naturalWidth") > 0
    before = dialog.locator("td.n").first.inner_text()
    dialog.get_by_role("button", name="next").click()
    assert float(dialog.locator("td.n").first.inner_text()) <= float(before)
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.select_option("#order", "low")
    values: Any = page.eval_on_selector_all(".case", "all => all.map(each => data.cases[each.dataset.index].score)")
    assert values == sorted(values)


def test_a_run_that_is_not_registered_has_no_films_but_all_else(page: Page, made: MadeSite) -> None:
    (folder,) = (path for path in Path(made.out).iterdir() if path.name.startswith("later"))
    page.goto((folder / "index.html").as_uri())
    page.locator("#curves .main-svg").first.wait_for()
    assert page.locator(".case").count() == 0
    assert "Films are shown of registered runs" in page.inner_text("main")
    page.fill("#threshold", "1")
    assert counts(page)["tp"] == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_both_pages_fit_a_screen_and_axe_complains_of_nothing(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        if page.locator("#models").count():
            open_run(page)
