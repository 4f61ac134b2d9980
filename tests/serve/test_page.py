"""The page in a browser: upload, slider, keyboard, download, errors; nothing is asked of anybody else."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddl_d2.report.chain import verify_chain
from ddl_d2.report.html import OVERLAY_SCRIPT, data_uri, overlay, page
from ddl_d2.report.map_layer import map_layer
from ddl_d2.report.review import review_page
from tests.report.test_review import CALIBRATED

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")

CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).exists()), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, port):
    """The page of the service; at the end: no error was logged, and no request went elsewhere."""
    context = browser.new_context(viewport={"width": 1000, "height": 800}, accept_downloads=True)
    tab = context.new_page()
    errors, requests = [], []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("request", lambda request: requests.append(request.url))
    tab.expected_errors = 0
    tab.goto(f"http://127.0.0.1:{port}/")
    tab.wait_for_selector("#status:has-text('Ready')")
    yield tab
    assert len(errors) == tab.expected_errors, errors
    own = (f"http://127.0.0.1:{port}/", "data:", f"blob:http://127.0.0.1:{port}/")
    assert [url for url in requests if not url.startswith(own)] == []
    context.close()


def examine(tab, file):
    tab.set_input_files("#file", str(file))
    tab.wait_for_selector("#result:not([hidden])")


def test_an_upload_shows_verdict_image_and_findings(tab, photo):
    examine(tab, photo)
    assert tab.inner_text("#headline") in (
        "Score above the threshold: signs of forgery",
        "Score not above the threshold: no forgery found",
    )
    assert "uncalibrated" in tab.inner_text("#score")
    assert tab.locator("#findings article").count() >= 8
    assert tab.evaluate("document.getElementById('image').naturalWidth") == 96


def test_the_slider_sets_the_opacity_by_keyboard_too(tab, photo):
    examine(tab, photo)
    tab.fill("#opacity", "50")
    assert tab.evaluate("document.getElementById('layer').style.opacity") == "0.5"
    tab.focus("#opacity")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.getElementById('layer').style.opacity") == "0.51"
    assert tab.inner_text("#percent") == "51 %"
    tab.keyboard.press("End")
    assert tab.inner_text("#percent") == "100 %"


def test_everything_is_reached_by_the_tab_key(tab, photo):
    examine(tab, photo)
    tab.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(40):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
    for name in ("model", "file", "download", "opacity", "SUMMARY", "A"):
        assert name in reached


def test_the_record_is_downloaded(tab, photo, tmp_path):
    examine(tab, photo)
    with tab.expect_download() as caught:
        tab.click("#download")
    assert caught.value.suggested_filename == "record-photo.zip"
    caught.value.save_as(tmp_path / "record.zip")
    zipfile.ZipFile(tmp_path / "record.zip").extractall(tmp_path)
    assert len(verify_chain(tmp_path / "record")) == 1
    tab.wait_for_selector("#downloaded:has-text('Saved as record-photo.zip')")


def test_the_verdict_is_tried_on_twelve_deliveries(tab, photo):
    examine(tab, photo)
    assert tab.is_hidden("#deliveries")
    tab.click("#fragility")
    tab.wait_for_selector("#deliveries:not([hidden])", timeout=60000)
    assert tab.locator("#delivered tr").count() == 12
    assert tab.is_disabled("#fragility")


def test_another_model_examines_the_same_file(tab, photo):
    examine(tab, photo)
    first = tab.inner_text("#score")
    tab.select_option("#model", "tiny_1")
    tab.wait_for_selector("#score:has-text('tiny_1')")
    assert tab.inner_text("#score") != first


def test_what_cannot_be_read_is_said_in_a_sentence(tab, tmp_path, photo):
    tab.expected_errors = 1  # the browser logs the status
    (tmp_path / "notes.jpg").write_text("no image")
    tab.set_input_files("#file", str(tmp_path / "notes.jpg"))
    tab.wait_for_selector("#error:not([hidden])")
    assert "neither an image" in tab.inner_text("#error")
    assert tab.is_hidden("#result")
    examine(tab, photo)
    assert tab.is_hidden("#error")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_file_is_dropped_or_pasted(tab, photo, event):
    content = list(photo.read_bytes())
    tab.evaluate(
        """([event, content]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(content)], "given.jpg", {type: "image/jpeg"}));
            const given = event === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true})
                : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
            document.getElementById("drop").dispatchEvent(given);
        }""",
        [event, content],
    )
    tab.wait_for_selector("#result:not([hidden])")
    assert "given.jpg" in tab.inner_text("#status")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_on_a_phone(tab, photo, scheme):
    tab.set_viewport_size({"width": 360, "height": 700})
    tab.emulate_media(color_scheme=scheme)
    examine(tab, photo)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert tab.evaluate(CONTRASTS) >= 4.5


def test_names_of_files_are_text_only(tab, photo, tmp_path):
    odd = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    odd.write_bytes(photo.read_bytes())
    examine(tab, odd)
    assert "<img src=x onerror=alert(1)>.jpg" in tab.inner_text("#status")
    assert tab.locator("#status img").count() == 0


def test_a_page_from_disk_moves_its_layer(browser, astronaut, tmp_path):
    """The slider of records, which works without the service."""
    layer = data_uri(map_layer(np.linspace(0, 1, 512 * 512).reshape(512, 512), 0.5))
    html = overlay(data_uri(astronaut, quality=80), layer, description="<a> & b", opacity=0)
    (tmp_path / "a.html").write_text(page("A <title>", html, script=OVERLAY_SCRIPT))
    tab = browser.new_page()
    requests = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto((tmp_path / "a.html").as_uri())
    assert tab.title() == "A <title>"
    assert tab.get_attribute(".stack img", "alt") == "<a> & b"
    tab.fill("[data-opacity]", "30")
    assert tab.evaluate("document.querySelector('.layer').style.opacity") == "0.3"
    assert [url for url in requests if not url.startswith("data:")] == [(tmp_path / "a.html").as_uri()]
    tab.close()


CONTRASTS = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => {
        const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
        const [r, g, b] = rgb.slice(0, 3).map((v) => linear(v / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    let least = 21;
    for (const element of document.querySelectorAll("main *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.disabled) continue;
        const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
        least = Math.min(least, (a + .05) / (b + .05));
    }
    return least;
}"""
"""The least contrast between a text and what is behind it (WCAG 2.2, 1.4.3)."""


def test_the_contrast_is_measured(browser):
    tab = browser.new_page()
    tab.set_content("<main style='background:#fff'><p style='color:#767676'>gray</p></main>")
    assert tab.evaluate(CONTRASTS) == pytest.approx(4.54, abs=0.01)  # the known value of this gray on white
    tab.close()


def test_the_list_for_people_is_filtered_and_walked_by_keyboard(browser, tmp_path):
    rows = [{**row, "overlay": f"{row['file']}.png"} for row in CALIBRATED]
    (tmp_path / "review.html").write_text(review_page(rows))
    tab = browser.new_page()
    tab.goto((tmp_path / "review.html").as_uri())
    tab.focus("#rows tr:first-child a")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.activeElement.textContent") == "open.jpg"
    tab.select_option("#filter", "forged")
    assert tab.inner_text("#count") == "2 files"
    assert tab.locator("#rows tr:visible").count() == 2
    tab.close()
