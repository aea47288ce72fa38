"""The report in a real browser: its policy lets its own style and script work, and it is legible on a phone."""

from __future__ import annotations

import pytest
from browser import browser, complaints, resize, wait
from eventful_vitdet.report import write_report

from .conftest import dataset, write_dataset
from .test_report_page import folder

__all__ = ["browser", "dataset", "folder", "write_dataset"]

CHOOSE = """
const choice = document.getElementById("video");
choice.value = arguments[0];
choice.dispatchEvent(new Event("change", { bubbles: true }));
"""


@pytest.fixture
def page(browser, folder, dataset):  # noqa: F811
    path = folder / "report.html"
    write_report(str(folder), str(path), dataset=dataset[0])
    browser.get(path.as_uri())
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert complaints(browser) == []  # a style or script that is refused would be one


def test_style_and_script_work(page):
    color = "return getComputedStyle(document.querySelector(arguments[0])).getPropertyValue(arguments[1])"
    assert page.execute_script(color, "circle.dot", "fill") == "rgb(37, 99, 235)"
    assert page.execute_script(color, ".bar rect:not(.full)", "fill") != "rgb(0, 0, 0)"
    assert page.execute_script(color, "section", "border-radius") == "12px"
    # The script shows one of two timelines, and the other on demand.
    shown = "return [...document.querySelectorAll('[data-part=timeline]')].map((part) => !part.hidden)"
    assert page.execute_script(shown) == [True, False]
    page.execute_script(CHOOSE, "2")
    assert page.execute_script(shown) == [False, True]
    # And one of two measures of the videos' quality.
    heads = """return [...document.querySelectorAll(".bars > .head")].filter((head) => head.checkVisibility())
        .map((head) => head.textContent)"""
    assert page.execute_script(heads)[1] == "AP50, percent"
    page.find_element("css selector", "[data-chooses=quality] [value=AP25]").click()
    assert page.execute_script(heads)[:2] == ["video", "AP25, percent"]


@pytest.mark.parametrize("width", [390, 1400])
def test_wide_tables_say_so(page, width):
    resize(page, width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    hints = """return [...document.querySelectorAll(".scroll")].map((area) => [
        area.scrollWidth > area.clientWidth + 1, getComputedStyle(area.previousElementSibling).display !== "none"])"""
    pairs = wait(page, hints, until=lambda found: all(wide == said for wide, said in found))
    assert any(wide for wide, _ in pairs) == (width == 390)
