"""The page in a real browser, headless, with the demo's weights on a rendered video."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from detectron2.modeling import build_model
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.cli.command_line import build_cfg
from eventful_vitdet.data.builtin import DEMO_VID_CLASSES
from eventful_vitdet.live.session import LiveSession
from eventful_vitdet.video import open_source

from .conftest import serving

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra 'test')")
BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
SECONDS = 30
"""Longer than any step takes on a busy machine."""
GFLOPS_OF_EVENTFUL_FRAME = """
const eventful = document.getElementById("saving").textContent !== "";
return eventful ? Number(document.getElementById("gflops").textContent) : null;
"""
MOVE_SLIDER = """
const slider = document.getElementById(arguments[0]);
slider.value = arguments[1];
slider.dispatchEvent(new Event("input", { bubbles: true }));
slider.dispatchEvent(new Event("change", { bubbles: true }));
"""
PIXELS = """
const shown = document.getElementById("picture");
const copy = Object.assign(document.createElement("canvas"), { width: shown.width, height: shown.height });
const context = copy.getContext("2d", { willReadFrequently: true });
context.drawImage(shown, 0, 0);
const { data } = context.getImageData(0, 0, copy.width, copy.height);
let redness = 0;
for (let i = 0; i < data.length; i += 4) redness += data[i] - data[i + 2];
return [copy.width, redness];
"""


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, whose log is checked at the end of each test."""
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


@pytest.fixture(scope="module")
def address(tmp_path_factory, repository):
    """The page of the demo's detector on a rendered video of 30 frames."""
    folder = tmp_path_factory.mktemp("demo_vid")
    script = str(repository / "datasets" / "render_synthetic_vid.py")
    options = ["--split", "test", "--videos", "1", "--frames", "30"]
    subprocess.run([sys.executable, script, "--output", str(folder), *options], check=True, capture_output=True)
    weights = str(repository / "weights" / "demo_vitdet_tiny.safetensors")
    config = str(repository / "configs" / "demo" / "vitdet_tiny.yaml")
    cfg = build_cfg(config, ["MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    VideoCheckpointer(model).load(weights)
    session = LiveSession(cfg, model, open_source(str(folder / "videos" / "test_000.mp4")), DEMO_VID_CLASSES)
    with serving(session) as address:
        yield f"http://{address}/"


@pytest.fixture
def page(browser, address):
    """The page, with frames arriving; afterwards the browser must have had nothing to complain of."""
    browser.get(address)
    wait(browser, "return document.getElementById('status').dataset.state === 'playing'")
    wait(browser, "return document.getElementById('gflops').textContent !== '–'")
    yield browser
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")] == []


def wait(browser, script: str, *arguments: object, until: Callable[[object], bool] = bool) -> object:
    """Evaluate a script in the page until its value is as wanted."""
    end = time.monotonic() + SECONDS
    while not until(value := browser.execute_script(script, *arguments)):
        assert time.monotonic() < end, f"{script} is still {value!r}"
        time.sleep(0.05)
    return value


def click(browser, name: str) -> None:
    browser.find_element("id", name).click()


def text(browser, name: str) -> str:
    return browser.find_element("id", name).text


def test_slider_lowers_the_measured_operations(page):
    assert "64" in text(page, "budget-value") and "of 320" in text(page, "budget-of")
    before = wait(page, GFLOPS_OF_EVENTFUL_FRAME)
    page.execute_script(MOVE_SLIDER, "budget", 158)  # of 1000, on a quadratic scale: 8 of 320 tokens
    wait(page, "return document.getElementById('budget-value').textContent === '8'")
    after = wait(page, GFLOPS_OF_EVENTFUL_FRAME, until=lambda gflops: gflops is not None and gflops < 0.85 * before)
    assert 0 < after
    # With the arrow keys, as one who cannot use a mouse would do it.
    page.find_element("id", "budget").send_keys("\ue014" * 40)
    wait(page, "return Number(document.getElementById('budget-value').textContent) > 8")


def test_overlay_toggles_on_a_still_picture(page):
    click(page, "play")
    wait(page, "return document.getElementById('status').dataset.state === 'paused'")
    for frame in (3, 7):  # two, since it may have stopped at one of them
        page.execute_script(MOVE_SLIDER, "seek", frame)
        wait(page, "return document.getElementById('time').textContent.endsWith(arguments[0])", f"· {frame} / 29")
    width, plain = page.execute_script(PIXELS)
    click(page, "tokens")
    _, tinted = page.execute_script(PIXELS)
    assert width > 320 and tinted < plain  # bluer
    click(page, "tokens")
    assert page.execute_script(PIXELS)[1] == plain
    click(page, "play")
    wait(page, "return document.getElementById('status').dataset.state === 'playing'")


def test_switch_to_dense_and_back(page):
    click(page, "dense")
    wait(page, "return document.getElementById('budget').disabled")
    wait(page, GFLOPS_OF_EVENTFUL_FRAME, until=lambda gflops: gflops is None)
    assert page.find_element("id", "dense").get_attribute("aria-pressed") == "true"
    click(page, "eventful")
    wait(page, GFLOPS_OF_EVENTFUL_FRAME)


def test_detections_are_listed(page):
    # Read at once: the list is made anew with every frame.
    names = wait(page, "return [...document.querySelectorAll('#detections li span')].map((name) => name.textContent)")
    assert set(names) <= set(DEMO_VID_CLASSES)


def test_two_pages_show_the_same(page, address):
    main = page.current_window_handle
    page.switch_to.new_window("tab")
    page.get(address)
    wait(page, "return document.getElementById('viewers').textContent === '2 viewers'")
    click(page, "dense")
    page.switch_to.window(main)
    wait(page, "return document.getElementById('dense').getAttribute('aria-pressed') === 'true'")
    click(page, "eventful")
    other = next(handle for handle in page.window_handles if handle != main)
    page.switch_to.window(other)
    page.close()
    page.switch_to.window(main)
    wait(page, "return document.getElementById('viewers').textContent === '1 viewer'")


@pytest.mark.parametrize("width", [320, 390, 820, 1020])
def test_it_fits_windows_of_any_width(page, tmp_path, width):
    """The widest of the pictures that this leaves is the one in the docs."""
    size = {"width": width, "height": 880, "deviceScaleFactor": 1, "mobile": width < 800}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        click(page, "tokens")
        wait(page, "return document.getElementById('picture').getBoundingClientRect().width <= arguments[0]", width)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for name in ("play", "seek", "time", "repeat", "eventful", "budget"):
            box = page.find_element("id", name).rect
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] >= 30, (name, box)
        assert page.find_element("id", "seek").rect["width"] >= 150
        page.execute_script(MOVE_SLIDER, "budget", 316)  # 32 of 320 tokens
        wait(page, "return document.getElementById('budget-value').textContent === '32'")
        wait(page, GFLOPS_OF_EVENTFUL_FRAME)
        assert page.save_screenshot(str(tmp_path / f"live_{width}.png"))
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_refusals_are_shown(page):
    reason = page.execute_async_script(
        """
        const done = arguments[0];
        fetch("/api/settings", {method: "POST", headers: {"Content-Type": "application/json"},
              body: JSON.stringify({budget: 321})}).then((answer) => answer.json()).then((body) => done(body.error));
        """
    )
    assert "budget is a number from 0 to 320" in reason
    # Chromium itself notes refused requests in its log.
    assert all("422" in entry["message"] for entry in page.get_log("browser"))
