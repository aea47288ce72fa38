"""Chromium without a window, for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra 'test')")
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
SECONDS = 30
"""Longer than any step takes on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    found = [next(filter(None, map(shutil.which, names)), None) for names in (BROWSERS, DRIVERS)]
    if None in found:
        pytest.skip("Chromium and chromedriver are not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_argument("--window-size=1440,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
    driver.set_script_timeout(SECONDS)
    yield driver
    driver.quit()


def wait(browser: webdriver.Chrome, script: str, *arguments: object, until: Callable[[object], bool] = bool) -> object:
    """Evaluate a script in the page until its value is as wanted, and return that."""
    values: list = []

    def is_wanted(driver: webdriver.Chrome) -> bool:
        values.append(driver.execute_script(script, *arguments))
        return until(values[-1])

    WebDriverWait(browser, SECONDS, poll_frequency=0.05).until(is_wanted, f"{script} is still {values[-1:]}")
    return values[-1]


def resize(browser: webdriver.Chrome, width: int, height: int = 880) -> None:
    """Show the page in a window, or on a phone, of this size."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the browser has noted in its log since the last time."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]
