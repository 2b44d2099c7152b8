"""The report in a browser: it loads nothing, its controls work by mouse and keyboard, and nothing in it is executed."""

from __future__ import annotations

import csv
import io
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import depthflow
from depthflow.reporting.directions import WHOLE
from tests.tolerances import FLOAT64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import xarray as xr
    from playwright.sync_api import Browser, Page

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright for Python")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a Chromium on the path", allow_module_level=True)

SAMPLES, DEPTHS = 24, 6
WEBGL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
NO_WEBGL = ["--disable-gpu", "--disable-3d-apis"]
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a & b </script><script>alert(3)</script>",
    "ß" * 300,
]
READY = "() => { const form = document.getElementById('controls'); return form !== null && !form.hidden; }"
POINTS = "() => ['x', 'y', 'z'].map((axis) => Array.from(document.getElementById('plot').data[1][axis]))"
FOCUSED = """() => {
    const one = document.activeElement;
    return one.id || one.dataset.turn || one.name || one.className;
}"""
COLORS = "() => Array.from(document.getElementById('plot').data[1].marker.color)"
SYMBOLS = ["circle", "square", "diamond", "circle-open", "square-open", "diamond-open"]
pytestmark = pytest.mark.slow
PATIENCE = 120_000
"""Milliseconds that a slow machine may take to draw in software."""


def states() -> xr.DataArray:
    """Return states in four directions, growing from noise, with hostile labels and names."""
    rng = np.random.default_rng(0)
    label = np.arange(SAMPLES) % len(HOSTILE)
    grown = np.linspace(0, 1, DEPTHS)[:, None, None] * 3 * np.eye(4, 7)[label][:, None, None]
    traj = depthflow.trajectory(
        grown + 0.3 * rng.normal(size=(SAMPLES, DEPTHS, 4, 7)),
        token_type=["cls", "patch", "patch", "patch"],
        label=[HOSTILE[one] for one in label],
        attrs={"model": HOSTILE[0]},
    )
    return traj.assign_coords(sample_id=("sample", np.array([f"{HOSTILE[1]}{one}" for one in range(SAMPLES)])))


def pictures() -> np.ndarray:
    return np.random.default_rng(1).random((SAMPLES, 3, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    title = f"{HOSTILE[2]} {HOSTILE[1]}"
    return depthflow.report(
        states(), pictures(), path=path, measures=["convergence", "basins"], title=title, progress=False
    )


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[[list[str]], Browser]]:
    """Return a function that starts a Chromium with these arguments."""
    with playwright.sync_playwright() as driver:
        browsers = []

        def start(arguments: list[str]) -> Browser:
            common = ["--no-sandbox", "--disable-background-networking"]
            browsers.append(driver.chromium.launch(executable_path=CHROMIUM, args=[*common, *arguments]))
            return browsers[-1]

        yield start
        for browser in browsers:
            browser.close()


@pytest.fixture(scope="module")
def browser(launch: Callable[[list[str]], Browser]) -> Browser:
    return launch(WEBGL)


@pytest.fixture
def opened(browser: Browser, page_file: Path) -> Iterator[Callable[..., Page]]:
    """Return a function that opens the report; what the page complains of, asks for or pops up fails the test."""
    events: list[str] = []
    contexts = []

    def open_page(**options: object) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: events.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: events.append(str(error)))
        page.on("dialog", lambda dialog: (events.append(dialog.message), dialog.dismiss()))
        page.on(
            "request", lambda one: None if one.url.startswith(("file:", "data:", "blob:")) else events.append(one.url)
        )
        page.goto(page_file.as_uri())
        page.wait_for_function(READY)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert events == []


def radio(page: Page, name: str, place: int) -> None:
    page.locator(f"input[type=radio][name={name}]").nth(place).check()


def test_nothing_hostile_is_executed_or_lost(opened):
    page = opened()
    assert page.title() == f"{HOSTILE[2]} {HOSTILE[1]}"
    radio(page, "color", 1)
    legend = page.locator("#legend").inner_text()
    assert all(f"class {label} (6)" in legend for label in HOSTILE)
    page.locator("#sample").fill("5")
    page.locator("#sample").press("Enter")
    page.locator("#chosen").wait_for()
    assert f"{HOSTILE[1]}5" in page.locator("#chosen").inner_text()
    assert page.locator("script").count() == 3, "the data, plotly.js and the page's own"
    assert page.locator("img[src=x]").count() == 0


def test_the_slider_moves_the_points_along_depth(opened):
    page = opened()
    traj = states()
    final = traj.sel(token=0).isel(depth=-1).values
    units = final / np.linalg.norm(final, axis=1, keepdims=True)
    axes = np.linalg.eigh(units.T @ units)[1][:, ::-1][:, :3]
    for depth, key in ((DEPTHS - 1, None), (DEPTHS - 2, "ArrowLeft"), (0, "Home"), (1, "ArrowRight")):
        if key is not None:
            page.locator("#depth").press(key)
        expected = traj.sel(token=0).isel(depth=depth).values @ axes
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        page.wait_for_function(f"() => document.getElementById('depth-said').textContent.startsWith('depth {depth} ')")
        seen = np.array(page.evaluate(POINTS))
        # The sign of an axis is free; coordinates are kept as whole steps.
        assert np.abs(np.abs(seen) - np.abs(expected.T)).max() * WHOLE < 1


def test_token_trajectory_and_colour_can_be_chosen(opened):
    page = opened()
    seen = [page.evaluate(POINTS)]
    for name in ("view", "shown"):
        radio(page, name, 1)
        page.wait_for_timeout(500)
        seen.append(page.evaluate(POINTS))
    assert seen[0] != seen[1] != seen[2] != seen[0]
    radio(page, "shown", 0)
    by_basin = page.evaluate(COLORS)
    radio(page, "color", 1)
    by_class = page.evaluate(COLORS)
    assert len(set(by_class)) == len(HOSTILE)
    assert by_class == [by_class[index % len(HOSTILE)] for index in range(SAMPLES)]
    radio(page, "color", 2)
    assert page.evaluate("() => typeof document.getElementById('plot').data[1].marker.color") == "string"
    assert by_basin != by_class


def test_every_mark_has_the_colour_and_shape_that_the_legend_gives_its_group(opened):
    page = opened()
    marker = (
        "() => { const { color, symbol } = document.getElementById('plot').data[1].marker; return [color, symbol]; }"
    )
    legend = """() => [...document.querySelectorAll('#legend li')].map((one) =>
        [one.textContent.slice(2).replace(/ \\([^(]*$/, ''), one.firstChild.style.color, one.textContent[0]])"""
    glyphs = dict(zip(SYMBOLS, "●■◆○□◇", strict=True))
    null = depthflow.random_directions(states())
    for shown, traj in enumerate((states(), null)):
        found = depthflow.basins(traj)
        radio(page, "shown", shown)
        page.wait_for_timeout(500)
        for color, noun, groups in ((0, "basin", found.basin), (1, "class", found.label)):
            radio(page, "color", color)
            drawn = {name: (css, glyph) for name, css, glyph in page.evaluate(legend)}
            colors, symbols = page.evaluate(marker)
            for group, hexed, symbol in zip(groups.values.tolist(), colors, symbols, strict=True):
                css, glyph = drawn[f"{noun} {group}"]
                assert css == f"rgb({', '.join(str(int(hexed[place : place + 2], 16)) for place in (1, 3, 5))})"
                assert glyph == glyphs[symbol]


def test_a_mark_that_is_pointed_at_tells_its_own_sample(opened):
    page = opened()
    for sample in (0, 7, 23):
        page.evaluate(
            "(sample) => plot.emit('plotly_hover', { points: [{ curveNumber: 1, pointNumber: sample }] })", sample
        )
        said = page.locator("#card").inner_text()
        assert said.startswith(f"sample number {sample}\nnamed {HOSTILE[1]}{sample}\nclass {HOSTILE[sample % 4][:20]}")
        thumb = Image.open(io.BytesIO(page.locator("#card .thumb").screenshot())).convert("RGB")
        seen = np.asarray(thumb)[3::6, 3::6]
        expected = np.round(255 * pictures()[sample]).transpose(1, 2, 0)
        np.testing.assert_array_equal(seen[1:-1, 1:-1], expected[1:-1, 1:-1])


def test_samples_of_other_labels_are_told_by_number_and_name(browser, tmp_path):
    traj = states().drop_vars("sample_id").isel(sample=[7, 3, 5, 9])
    path = depthflow.report(traj, path=tmp_path / "r.html", measures=["convergence"], progress=False)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(path.as_uri())
    page.wait_for_function(READY)
    page.locator("#sample").fill("3")
    page.locator("#sample").press("Enter")
    page.locator("#chosen").wait_for()
    assert page.locator("#chosen").inner_text().startswith("sample number 3\nnamed 9\n")
    page.close()


def test_all_of_it_works_by_keyboard(opened):
    page = opened()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
    assert {
        "skip",
        "depth",
        "play",
        "sample",
        "left",
        "right",
        "up",
        "down",
        "in",
        "out",
        "view",
        "shown",
        "color",
    } <= reached
    eye = "() => ({ ...document.getElementById('plot')._fullLayout.scene.camera.eye })"
    before = page.evaluate(eye)
    page.locator("[data-turn=left]").press("Enter")
    assert page.evaluate(eye) != before
    page.locator("#play").press("Enter")
    assert page.locator("#play").inner_text() == "Pause"
    assert page.locator("#depth").input_value() == "0", "playing starts again from the first depth"
    page.wait_for_function("() => document.getElementById('depth').value > 0")
    page.locator("#play").press("Enter")
    assert page.locator("#play").inner_text() == "Play"


def test_a_download_holds_the_results(opened, tmp_path):
    page = opened()
    with page.expect_download() as waiting:
        page.locator("a[download='convergence.csv']").click()
    waiting.value.save_as(tmp_path / "convergence.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "convergence.csv").read_text())))
    result = depthflow.convergence(states())
    for kind, tokens in (("cls", [0]), ("patch", [1, 2, 3])):
        got = [
            float(row["value"])
            for row in rows
            if (row["of"], row["variable"], row["token_type"]) == ("trajectory", "angle", kind)
        ]
        np.testing.assert_allclose(got, result.angle.isel(token=tokens).mean(["sample", "token"]), **FLOAT64)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_need_not_scroll_sideways(opened, scheme):
    page = opened(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert page.locator("#plot").bounding_box()["width"] <= 390


def test_without_webgl_a_picture_stands_in(launch, page_file):
    page = launch(NO_WEBGL).new_page()
    page.goto(page_file.as_uri())
    page.locator("#still img").wait_for()
    assert page.locator("#stage").is_hidden()
    assert page.locator("#controls").is_hidden()
    assert "WebGL, which are not available" in page.locator("#still").inner_text()
    assert page.evaluate("() => document.querySelector('#still img').naturalWidth") > 0


def test_without_javascript_all_but_the_view_that_turns_is_there(browser, page_file):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(page_file.as_uri())
    assert page.locator("#answers").is_visible()
    assert page.locator("#still img").is_visible()
    assert page.locator("#controls").is_hidden()
    assert "JavaScript" in page.locator("#still").inner_text()
    assert page.locator("a[download='samples.csv']").is_visible()
    page.context.close()


def test_on_paper_the_still_picture_stands_in(opened):
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#still img").is_visible()
    assert page.locator("#stage").is_hidden()
    assert page.locator("#controls").is_hidden()
    assert "JavaScript" not in page.locator("#still").inner_text()
    assert page.evaluate("() => getComputedStyle(document.querySelector('h3 a')).color") == "rgb(0, 90, 140)"
