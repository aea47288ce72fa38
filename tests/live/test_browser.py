"""The page in a real browser, headless, with the demo's weights on a rendered video."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest
from browser import browser, complaints, resize, wait
from detectron2.modeling import build_model
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.data.builtin import DEMO_VID_CLASSES
from eventful_vitdet.draw.label_placement import corners_around, place_label
from eventful_vitdet.live.detector_session import DetectorSession, GridSession
from eventful_vitdet.predictor import share_weights
from eventful_vitdet.video import open_source

from .conftest import serving

__all__ = ["browser"]

GFLOPS_OF_EVENTFUL_FRAMES = """
const eventful = document.getElementById("gflops-saving").textContent !== "";
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
def video(tmp_path_factory, render_videos) -> str:
    """A rendered video of 30 frames."""
    folder = tmp_path_factory.mktemp("demo_vid")
    render_videos(folder, "test", 1, 30)
    return str(folder / "videos" / "test_000.mp4")


@pytest.fixture(scope="module")
def make_session(repository):
    """Sessions of the demo's detector."""
    weights = str(repository / "weights" / "demo_vitdet_tiny.safetensors")
    config = str(repository / "configs" / "demo" / "vitdet_tiny.yaml")
    cfg = build_cfg(config, ["MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    VideoCheckpointer(model).load(weights)

    # Each with a state of its own, as one may still be in the midst of a frame when the next one begins.
    def make(*paths: str) -> DetectorSession:
        kind = DetectorSession if len(paths) == 1 else GridSession
        return kind(cfg, share_weights(model), [open_source(path) for path in paths], DEMO_VID_CLASSES)

    return make


@pytest.fixture(scope="module")
def address(make_session, video):
    with serving(make_session(video)) as address:
        yield f"http://{address}/"


def open_page(browser, address: str) -> None:
    browser.get(address)
    wait(browser, "return document.getElementById('status').dataset.state === 'playing'")
    wait(browser, "return document.getElementById('gflops').textContent !== '–'")


@pytest.fixture
def page(browser, address):
    """The page, with frames arriving; afterwards the browser must have had nothing to complain of."""
    open_page(browser, address)
    yield browser
    assert complaints(browser) == []


def click(browser, name: str) -> None:
    browser.find_element("id", name).click()


def text(browser, name: str) -> str:
    return browser.find_element("id", name).text


def test_slider_lowers_the_measured_operations(page):
    assert "64" in text(page, "budget-value") and "of 320" in text(page, "budget-of")
    before = wait(page, GFLOPS_OF_EVENTFUL_FRAMES)
    page.execute_script(MOVE_SLIDER, "budget", 158)  # of 1000, on a quadratic scale: 8 of 320 tokens
    wait(page, "return document.getElementById('budget-value').textContent === '8'")
    after = wait(page, GFLOPS_OF_EVENTFUL_FRAMES, until=lambda gflops: gflops is not None and gflops < 0.85 * before)
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
    # Tokens are shown from the start, and it is said what their colour means.
    assert "recomputed in this frame" in text(page, "key") and page.find_element("id", "key").is_displayed()
    width, tinted = page.execute_script(PIXELS)
    click(page, "tokens")
    _, plain = page.execute_script(PIXELS)
    assert width > 320 and tinted < plain  # bluer
    assert not page.find_element("id", "key").is_displayed()
    click(page, "tokens")
    assert page.execute_script(PIXELS)[1] == tinted
    click(page, "play")
    wait(page, "return document.getElementById('status').dataset.state === 'playing'")


def test_switch_to_dense_and_back(page):
    click(page, "dense")
    wait(page, "return document.getElementById('budget').disabled")
    wait(page, GFLOPS_OF_EVENTFUL_FRAMES, until=lambda gflops: gflops is None)
    assert page.find_element("id", "dense").get_attribute("aria-pressed") == "true"
    click(page, "eventful")
    wait(page, GFLOPS_OF_EVENTFUL_FRAMES)


def test_the_dense_model_beside_the_eventful_one(page):
    screen = "return document.querySelector('.screen').getBoundingClientRect()"
    before = page.execute_script(screen)
    click(page, "beside")
    wait(page, "return document.getElementById('gflops-saving').textContent.endsWith('than dense')")
    # Two pictures of five to four, and the stage takes their shape.
    ratio = "const s = document.querySelector('.screen'); return s.clientWidth / s.clientHeight"
    wait(page, ratio, until=lambda value: value == pytest.approx(2 * 320 / 256, rel=0.02))
    assert page.execute_script(screen)["width"] > before["width"]
    assert re.fullmatch(r"dense \(median of \d+\)", text(page, "reference"))
    saving = text(page, "milliseconds-saving")
    assert saving == "no faster than dense" or saving.endswith("× faster than dense")
    click(page, "beside")
    wait(page, ratio, until=lambda value: value == pytest.approx(320 / 256, rel=0.02))


def test_a_target_in_milliseconds(page):
    field = page.find_element("id", "target")
    field.send_keys("1\n")  # out of reach, so the budget becomes small
    wait(page, "return Number(document.getElementById('budget-value').textContent) < 32")
    wait(page, "return document.getElementById('target').value === '1'")
    page.execute_script(MOVE_SLIDER, "budget", 447)  # 64 of 320 tokens
    wait(page, "return document.getElementById('target').value === ''")
    wait(page, "return document.getElementById('budget-value').textContent === '64'")


PLACES = """
const place = (selector) => document.querySelector(selector).getBoundingClientRect();
const places = () => Object.fromEntries(
  [".screen", "#picture", ".stage", "aside", "#seek"].map((name) => [name, place(name)]));
// Once what the resizing led to has been drawn.
requestAnimationFrame(() => requestAnimationFrame(() => arguments[0](places())));
"""
WINDOWS = ((1400, 900), (1024, 768), (390, 844))


def write_still(path, width: int, height: int) -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (width, height))
    for index in range(8):
        writer.write(np.full((height, width, 3), 20 * index, np.uint8))
    writer.release()
    return str(path)


@pytest.mark.parametrize(
    ("size", "below"),
    [((160, 90), (False, True, True)), ((128, 128), (False, False, True)), ((72, 128), (False, False, True))],
    ids=["landscape", "square", "portrait"],
)
def test_a_video_of_any_shape_uses_the_window(browser, make_session, tmp_path, size, below):
    aspect = size[0] / size[1]
    with serving(make_session(write_still(tmp_path / "video.avi", *size))) as address:
        open_page(browser, f"http://{address}/")
        for (width, height), panels_below in zip(WINDOWS, below):
            resize(browser, width, height)
            wait(browser, "return innerWidth === arguments[0]", width)
            found = browser.execute_async_script(PLACES)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            screen, stage, panels = found[".screen"], found[".stage"], found["aside"]
            assert screen["width"] / screen["height"] == pytest.approx(aspect, rel=0.05)
            assert found["#picture"]["width"] == pytest.approx(screen["width"], abs=1)
            # The picture and its controls are in view, and fill the window's height, or the width there is.
            assert stage["bottom"] <= height
            space = width - 15 if panels_below else width - 340 - 20  # 15: a scroll bar
            assert stage["bottom"] > height - 60 or screen["width"] > space - 60
            assert found["#seek"]["width"] >= 260
            if panels_below:
                assert panels["top"] >= stage["bottom"] and panels["width"] > width - 60
            else:
                assert panels["left"] >= stage["right"] and panels["right"] > width - 60 and panels["width"] >= 340
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    complaints(browser)  # the server is gone, which the page tries in vain


def test_labels_stand_where_the_drawn_videos_have_them(page):
    """The page's rules and those of draw/label_placement.py are the same."""
    generator = np.random.default_rng(0)
    starts = generator.uniform((0, 0), (260, 170), (12, 2)).round(1)
    boxes = np.concatenate([starts, starts + generator.uniform(10, 60, (12, 2)).round(1)], axis=1).tolist()
    boxes += [[260, 150, 380, 260], [-40, 80, 30, 120], [20, 230, 80, 260], [20, 230, 81, 260], [-90, -80, -20, -30]]
    bounds, size = (0.0, 0.0, 300.0, 200.0), (60.0, 14.0)
    expected: list = []
    for box in boxes:
        place_label(size, corners_around(box, size, bounds), bounds, expected, boxes)
    found = page.execute_async_script(
        """
        const [boxes, bounds, size, done] = arguments;
        import("/labels.js").then(({ placeLabel }) => {
          const labels = [];
          for (const box of boxes) placeLabel(box, ...size, bounds, labels, boxes);
          done(labels);
        });
        """,
        boxes,
        bounds,
        size,
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_savings_are_medians_of_later_frames(page):
    """Neither the session's first frame nor a single slow one makes them look better."""
    costs = [{"serial": 0, "gflops": 4.0, "ms": 900.0, "kind": "flush"}]
    costs += [{"serial": i, "gflops": 1.0, "ms": 500.0 if i == 3 else 10.0, "kind": "eventful"} for i in range(1, 8)]

    def evaluate(costs: list[dict]) -> dict:
        return page.execute_async_script(
            """
            const [costs, done] = arguments;
            import("/costs.js").then(({ later, reference }) => done({
              later: [later(costs, "gflops"), later(costs, "ms")],
              reference: [reference(costs, "gflops"), reference(costs, "ms")],
            }));
            """,
            costs,
        )

    found = evaluate(costs)
    assert found["later"] == [1.0, 10.0]
    in_full = {"name": "in full", "count": 1}
    assert found["reference"] == [{"value": 4.0, **in_full}, {"value": None, "name": "in full", "count": 0}]
    costs.append({"serial": 8, "gflops": 4.0, "ms": 30.0, "kind": "flush"})
    assert evaluate(costs)["reference"][1] == {"value": 30.0, **in_full}
    costs += [{"serial": 9, "gflops": 4.0, "ms": 28.0, "kind": "dense"}]
    assert evaluate(costs)["reference"][1] == {"value": 28.0, "name": "dense", "count": 1}
    costs[-3] |= {"dense_gflops": 4.0, "dense_ms": 25.0}  # beside an eventful frame
    assert evaluate(costs)["reference"][1] == {"value": 25.0, "name": "dense", "count": 1}


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


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
def test_it_fits_windows_of_any_width(page, tmp_path, width):
    """The widest of the pictures that this leaves is the one in the docs."""
    resize(page, width)
    try:
        assert text(page, "source") == "test_000.mp4"  # also on a phone
        wait(page, "return document.getElementById('picture').getBoundingClientRect().width <= arguments[0]", width)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        for name in ("play", "seek", "time", "repeat", "eventful", "budget"):
            box = page.find_element("id", name).rect
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] >= 30, (name, box)
        assert page.find_element("id", "seek").rect["width"] >= 150
        cut = """return [...document.querySelectorAll("aside, aside .card, #detections")].filter(
            (part) => part.scrollHeight > part.clientHeight + 1).length"""
        assert page.execute_script(cut) == 0  # nothing, the list of detections least of all, is cut off inside the page
        page.execute_script(MOVE_SLIDER, "budget", 316)  # 32 of 320 tokens
        wait(page, "return document.getElementById('budget-value').textContent === '32'")
        wait(page, GFLOPS_OF_EVENTFUL_FRAMES)
        assert page.save_screenshot(str(tmp_path / f"live_{width}.png"))
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def grid_address(make_session, tmp_path_factory, render_videos):
    folder = tmp_path_factory.mktemp("grid")
    render_videos(folder, "test", 4, 30)
    with serving(make_session(*(str(folder / "videos" / f"test_00{number}.mp4") for number in range(4)))) as address:
        yield f"http://{address}/"


@pytest.fixture
def grid(browser, grid_address):
    """The page of four cameras, with frames of all of them."""
    browser.get("about:blank")  # so that an address that differs in its hash only is loaded too
    browser.get(grid_address)
    wait(browser, TILES, until=lambda tiles: len(tiles) == 4 and all("of tokens" in tile["text"] for tile in tiles))
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert complaints(browser) == []


TILES = """
return [...document.querySelectorAll("#tiles li")].map((tile) => ({
  text: tile.innerText, box: tile.getBoundingClientRect(), name: tile.querySelector("button").ariaLabel,
}));
"""
ENLARGED = "return document.body.classList.contains('grid') ? '' : document.getElementById('source').textContent"


def test_a_tile_for_each_camera(grid):
    tiles = grid.execute_script(TILES)
    for number, tile in enumerate(tiles):
        assert tile["name"] == f"enlarge test_00{number}.mp4" and f"test_00{number}.mp4" in tile["text"]
    # What it costs: 64 of 320 tokens, but for a frame that begins a round.
    wait(grid, TILES, until=lambda tiles: all("20 % of tokens" in tile["text"] for tile in tiles))
    assert all(re.search(r"0\.3\d* of 0\.7\d* GFlops", tile["text"]) for tile in grid.execute_script(TILES))
    assert text(grid, "source") == "4 cameras" and not grid.find_element("id", "seek").is_displayed()
    wait(grid, "return Number(document.getElementById('total-rate').textContent) > 0")
    saving = wait(grid, "return document.getElementById('total-words').textContent")
    assert re.fullmatch(r"(1\.[89]|2\.\d)× less than in full", saving)
    # One slider for all.
    grid.execute_script(MOVE_SLIDER, "budget", 158)  # 8 of 320 tokens
    wait(grid, TILES, until=lambda tiles: all(re.search(r"\b[23] % of tokens", tile["text"]) for tile in tiles))
    grid.execute_script(MOVE_SLIDER, "budget", 447)


def test_a_tile_is_enlarged_and_made_small_again(grid):
    grid.find_elements("css selector", "#tiles button")[2].click()
    wait(grid, ENLARGED, until=lambda name: name == "test_002.mp4")
    wait(grid, "return document.getElementById('gflops-saving').textContent !== ''")
    wait(grid, "return document.getElementById('time').textContent.endsWith(' / 29')")
    assert grid.find_element("id", "seek").is_displayed() and grid.find_element("id", "picture").is_displayed()
    assert not grid.find_element("id", "tiles").is_displayed()
    assert grid.switch_to.active_element.get_attribute("id") == "back"
    # This camera is stopped at a frame, of which its charts and its position tell.
    click(grid, "play")
    wait(grid, "return document.getElementById('status').dataset.state === 'paused'")
    grid.execute_script(MOVE_SLIDER, "seek", 7)
    wait(grid, "return document.getElementById('time').textContent.endsWith('· 7 / 29')")
    click(grid, "play")
    click(grid, "back")
    wait(grid, ENLARGED, until=lambda name: name == "")
    assert grid.switch_to.active_element.get_attribute("aria-label") == "enlarge test_002.mp4"
    # The same by keys, and by the browser's own way back.
    grid.switch_to.active_element.send_keys("\ue007")
    wait(grid, ENLARGED, until=lambda name: name == "test_002.mp4")
    grid.switch_to.active_element.send_keys("\ue00c")  # the button that leads back
    wait(grid, ENLARGED, until=lambda name: name == "")
    grid.back()
    wait(grid, ENLARGED, until=lambda name: name == "test_002.mp4")
    grid.refresh()
    wait(grid, ENLARGED, until=lambda name: name == "test_002.mp4")
    wait(grid, "return document.getElementById('gflops').textContent !== '–'")


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tiles_fit_windows_of_any_width(grid, tmp_path, width, scheme):
    """The widest of the light pictures that this leaves is the one in the docs."""
    grid.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    resize(grid, width)
    columns = "return new Set([...document.querySelectorAll('#tiles li')].map((tile) => tile.offsetLeft)).size"
    wait(grid, columns, until=lambda count: count == 2)
    for tile in grid.execute_script(TILES):
        assert tile["box"]["left"] >= 0 and 164 <= tile["box"]["right"] - tile["box"]["left"]
        assert tile["box"]["right"] <= width and tile["box"]["bottom"] <= 880
    assert grid.execute_script("return document.documentElement.scrollWidth") <= width
    assert grid.find_element("id", "budget").rect["width"] >= 150
    grid.execute_script(MOVE_SLIDER, "budget", 316)  # 32 of 320 tokens
    shown = re.compile(r"0\.3[0-4]\d* of 0\.7\d* GFlops")
    wait(grid, TILES, until=lambda tiles: all(shown.search(tile["text"]) for tile in tiles))
    wait(grid, TILES, until=lambda tiles: all("10 % of tokens" in tile["text"] for tile in tiles))
    picture = grid.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 85})
    (tmp_path / f"live_tiles_{width}_{scheme}.webp").write_bytes(base64.b64decode(picture["data"]))
    grid.execute_script(MOVE_SLIDER, "budget", 447)
    grid.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_tiles_are_as_large_as_a_space_allows(grid):
    found = grid.execute_async_script(
        """
        const done = arguments[0];
        import("/tiles.js").then(({ layOut }) => done([
          layOut(4, 1.25, { width: 1000, height: 688 }), layOut(2, 1.25, { width: 366, height: 632 }),
          layOut(16, 1.25, { width: 366, height: 632 }), layOut(1, 2, { width: 366, height: 632 }),
          layOut(3, 1, { width: 632, height: 595 }),
        ]));
        """
    )
    assert [layout["columns"] for layout in found] == [2, 1, 2, 1, 2]
    assert found[2]["width"] == 177 and found[3]["width"] == 366
    assert found[4]["width"] == (595 - 12) / 2 - 80  # the text of so narrow a tile takes a line more
    assert all(layout["width"] * layout["columns"] <= 1000 for layout in found)


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
    assert all("422" in message for message in complaints(page))
