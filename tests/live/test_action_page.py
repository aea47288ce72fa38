"""The page of a model that recognises actions, in a real browser."""

from browser import browser, complaints, wait

from .conftest import serving
from .test_action_session import new_session

__all__ = ["browser", "new_session"]

SHOWN = """
const shown = (element) => element.getClientRects().length > 0;
return {
  rows: [...document.querySelectorAll("#detections li")].map((row) => row.textContent),
  units: [...document.querySelectorAll("[data-actions]")].map((element) => element.textContent),
  hidden: [...document.querySelectorAll(".boxes")].every((element) => !shown(element)),
  budget: document.getElementById("budget").disabled,
};
"""


def test_classes_are_listed_and_what_is_about_boxes_is_hidden(browser, new_session, tmp_path):  # noqa: F811
    with serving(new_session) as address:
        browser.get(f"http://{address}/")
        page = wait(browser, SHOWN, until=lambda page: any("%" in row for row in page["rows"]))
        browser.save_screenshot(str(tmp_path / "live_actions.png"))
        assert len(page["rows"]) == 12 and page["rows"][0] == "verb" and page["rows"][6] == "noun"
        assert page["units"] == ["ms per step", "GFlops / step", "ms / step", "Actions"]
        assert page["hidden"] and not page["budget"]
        assert not complaints(browser)
