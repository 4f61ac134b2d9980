"""The report in a browser: filters, slider, keys; without a script; nothing is asked of anybody; as PDF."""

from __future__ import annotations

import numpy as np
import pytest

from ddl_d2.cli import report
from ddl_d2.report.pdf import print_pdf
from tests.fusion.small_stores import write_images, write_store
from tests.serve.test_page import CHROMIUM, browser  # noqa: F401  a fixture

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed")
# 2 fakes are found (one well, one badly), 1 is missed, 1 real image is a false alarm.
SCORES = {"fake/a.png": 0.9, "fake/b.png": 0.8, "fake/c.png": 0.2, "real/d.png": 0.7, "real/e.png": 0.1}
SHOWN = ["fake/a.png", "fake/b.png", "real/d.png", "fake/c.png"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of a small store."""
    root = tmp_path_factory.mktemp("report")
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:40] = True
    write_images(root / "data/valid", {name: mask if name.startswith("fake") else None for name in SCORES}, mask.shape)
    maps = {name: np.where(mask, 255, 20) if name == "fake/a.png" else np.full(mask.shape, 130) for name in SCORES}
    write_store(root / "small", SCORES, maps)
    words = ["--dataset-root", str(root / "data"), "--split", "valid", "--resamples", "100"]
    assert report.main([str(root / "small"), *words, "--output", str(root / "report.html")]) == 0
    return root / "report.html"


@pytest.fixture
def tab(browser, page):  # noqa: F811  the fixture of that name
    """The report, opened from disk; at the end: nothing was logged as an error, nothing asked of anybody."""
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    errors, requests = [], []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    yield tab
    assert errors == []
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    tab.close()


def visible(tab) -> list[str]:
    return tab.locator(".card:visible h4").all_inner_texts()


def focused(tab) -> str:
    return tab.evaluate("document.activeElement.getAttribute('aria-label')")


def test_filters_leave_what_is_asked_for(tab):
    assert visible(tab) == SHOWN
    tab.select_option("[data-filter=truth]", "real")
    assert visible(tab) == ["real/d.png"]
    assert tab.inner_text("#count") == "1 of 4 images"
    tab.select_option("[data-filter=truth]", "")
    tab.select_option("[data-filter=verdict]", "real")
    assert visible(tab) == ["fake/c.png"]
    assert tab.locator(".none:visible").count() == 3


def test_the_keys_search_and_go_from_image_to_image(tab):
    tab.keyboard.press("ArrowRight")
    assert focused(tab) == "fake/a.png"
    tab.keyboard.press("ArrowRight")
    assert focused(tab) == "fake/b.png"
    tab.keyboard.press("ArrowLeft")
    assert focused(tab) == "fake/a.png"
    tab.keyboard.press("/")
    tab.keyboard.type("D.PNG")
    assert visible(tab) == ["real/d.png"]
    tab.keyboard.press("Escape")
    assert visible(tab) == SHOWN


def test_the_slider_lays_the_map_over_the_image(tab):
    slider = tab.locator("[data-opacity]").first
    opacity = "document.querySelector('.card .layer').style.opacity"
    assert tab.evaluate(opacity) == "0"
    slider.focus()
    tab.keyboard.press("End")
    assert tab.evaluate(opacity) == "1"
    assert tab.evaluate("document.activeElement.type") == "range"
    tab.keyboard.press("ArrowLeft")
    assert tab.evaluate(opacity) == "0.99"


def test_a_phone_shows_it_without_scrolling_sideways(tab):
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert tab.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))")


def test_without_a_script_everything_can_be_read(browser, page):  # noqa: F811  the fixture
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert visible(tab) == SHOWN
    assert tab.locator(".card img.map:visible").count() == 4
    assert tab.locator(".toolbar:visible, [data-opacity]:visible").count() == 0
    context.close()


def test_it_is_printed_as_pdf(page, tmp_path):
    print_pdf(page, tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")
