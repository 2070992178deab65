"""The page of `maskq view` in Chromium: the slider, the legend, the pointer, keys, phone and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from maskq.contract import JobRecord, JobResult
from maskq.view import PageContent, page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

SKY, TREE, PERSON = (6, 230, 230), (4, 200, 3), (150, 5, 61)
LABELS = {2: "sky", 4: "tree", 12: "<b>person</b>"}
WIDTH, HEIGHT = 400, 300


def shown(*, photo: bool = True) -> PageContent:
    """Sky above, a tree below, a person in the tree's middle, a corner that is no class."""
    ids = np.full((HEIGHT, WIDTH), 2, np.uint8)
    ids[150:] = 4
    ids[200:280, 160:240] = 12
    ids[280:, 380:] = 255
    mask = Image.fromarray(ids)
    palette = np.zeros((256, 3), np.uint8)
    palette[[2, 4, 12]] = SKY, TREE, PERSON
    mask.putpalette(palette.tobytes())
    record = JobRecord(
        id="019b7c3e-5d2e-7a41-9c0b-3f6a1e8d2b57",
        status="succeeded",
        model="org/name",
        priority="normal",
        max_attempts=3,
        created_ms=1_767_323_045_000,
        request={"image_uri": "s3://photos/harbour.jpg"},
        result=JobResult(width=WIDTH, height=HEIGHT, model="org/name", labels=LABELS),
    )
    return PageContent(
        record,
        mask,
        Image.new("RGB", mask.size, (100, 100, 100)) if photo else None,
        Image.new("L", mask.size, 204) if photo else None,
        "" if photo else "The image could not be read",
    )


@pytest.fixture(params=["light", "dark"])
def opened(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page in a window for a desk; whatever it complains of, or asks the network for, fails."""
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1200, "height": 800}
    )
    complaints: list[str] = []
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(message.text))  # of its policy, say
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda asked: (
            None if asked.url.startswith(("data:", "file:")) else complaints.append(asked.url)
        ),
    )
    show(tab, tmp_path, shown())
    yield tab
    context.close()
    # `painted` reads the canvas more often than Chromium likes; the page itself never does.
    assert [one for one in complaints if not one.startswith("Canvas2D: ")] == []


def show(tab: Page, directory: Path, what: PageContent) -> None:
    path = directory / "page.html"
    path.write_text(page(what), encoding="utf-8")
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready]")


def painted(tab: Page, x: int, y: int) -> list[int]:
    """RGBA of the mask's canvas, once it has been drawn."""
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    code = "([x, y]) => [...mask.getContext('2d').getImageData(x, y, 1, 1).data]"
    found: list[int] = tab.evaluate(code, [x, y])
    return found


def begins(tab: Page) -> tuple[str, str]:
    """What the slider says, and where the mask is cut off."""
    tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    said = tab.locator("#divider").get_attribute("aria-valuenow") or ""
    return said, tab.evaluate("() => document.getElementById('mask').style.clipPath")


def test_the_mask_lies_over_the_image_in_the_colours_of_its_classes(opened: Page) -> None:
    for (x, y), colour in (((300, 20), SKY), ((20, 200), TREE), ((200, 250), PERSON)):
        *rgb, alpha = painted(opened, x, y)
        assert np.abs(np.array(rgb) - colour).max() <= 2
        assert alpha == round(255 * 0.65)
    assert painted(opened, 395, 295) == [0, 0, 0, 0]


def test_the_slider_follows_the_mouse_and_the_keys(opened: Page) -> None:
    assert begins(opened) == ("50", "inset(0px 0px 0px 50%)")
    stage = opened.locator("#stage").bounding_box()
    assert stage
    middle = stage["y"] + stage["height"] / 2
    opened.mouse.move(stage["x"] + stage["width"] / 2, middle)
    opened.mouse.down()
    opened.mouse.move(stage["x"] + stage["width"] / 4, middle, steps=4)
    opened.mouse.up()
    assert begins(opened)[0] == "25"
    divider = opened.locator("#divider")
    for key, said in (("ArrowRight", "27"), ("PageUp", "37"), ("Home", "0"), ("End", "100")):
        divider.press(key)
        assert begins(opened)[0] == said
    assert begins(opened)[1] == "inset(0px 0px 0px 100%)"
    left = divider.bounding_box()
    assert left
    assert left["x"] + 22 == pytest.approx(stage["x"] + stage["width"], abs=1.5)


def test_a_click_in_the_legend_shows_that_class_and_dims_the_others(opened: Page) -> None:
    person = opened.locator(".entry", has_text="person")
    before = painted(opened, 20, 200)
    person.click()
    *rgb, alpha = painted(opened, 200, 240)
    assert (np.abs(np.array(rgb) - PERSON).max() <= 3, alpha > 100) == (True, True)
    assert painted(opened, 160, 240) == [*PERSON, 255]  # its outline
    dimmed = painted(opened, 20, 200)
    assert dimmed != before
    assert max(dimmed[:3]) < 20
    assert begins(opened)[1] == "none"  # all of it is seen, whatever the slider says
    assert person.get_attribute("aria-pressed") == "true"
    opened.keyboard.press("Escape")
    assert painted(opened, 20, 200) == before
    assert person.get_attribute("aria-pressed") == "false"


def test_pointing_at_the_legend_shows_a_class_for_as_long(opened: Page) -> None:
    before = painted(opened, 20, 200)
    opened.locator(".entry", has_text="sky").hover()
    assert painted(opened, 20, 200) != before
    opened.mouse.move(5, 5)
    assert painted(opened, 20, 200) == before


def test_the_legend_is_for_the_keyboard_too(opened: Page) -> None:
    sky = opened.locator(".entry", has_text="sky")
    sky.focus()
    opened.keyboard.press("Enter")
    assert max(painted(opened, 20, 200)[:3]) < 20
    assert sky.get_attribute("aria-pressed") == "true"
    clear = opened.get_by_role("button", name="Show all classes")
    clear.focus()
    opened.keyboard.press("Space")
    assert begins(opened)[1].startswith("inset")


def test_the_pointer_reads_class_and_confidence(opened: Page) -> None:
    stage = opened.locator("#stage").bounding_box()
    assert stage
    readout = opened.locator("#readout")
    assert readout.is_hidden()
    for x, y, said in ((300, 20, "sky"), (200, 240, "<b>person</b>"), (395, 295, "not asked for")):
        opened.mouse.move(
            stage["x"] + stage["width"] * (x + 0.5) / WIDTH,
            stage["y"] + stage["height"] * (y + 0.5) / HEIGHT,
        )
        assert readout.locator("bdi").inner_text() == said
        assert readout.locator(".sure").inner_text() == "80 % sure"
    opened.mouse.move(2, 2)
    assert readout.is_hidden()


def test_opacity_is_how_strong_the_colours_are(opened: Page) -> None:
    opened.locator("#opacity").fill("20")
    assert painted(opened, 300, 20)[3] == 51


def test_without_an_image_the_mask_stands_alone(opened: Page, tmp_path: Path) -> None:
    show(opened, tmp_path, shown(photo=False))
    assert opened.get_by_role("note").inner_text() == "The image could not be read"
    assert painted(opened, 20, 20) == [*SKY, 255]
    assert opened.locator("#divider").is_hidden()


@pytest.mark.parametrize("width", [320, 390, 768, 1200, 2400])
def test_it_fits_every_window(
    opened: Page, width: int, tmp_path: Path, pictures: Path | None
) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("() => document.documentElement.scrollWidth") <= width
    stage = opened.locator("#stage").bounding_box()
    legend = opened.locator("#legend").bounding_box()
    assert stage
    assert legend
    assert stage["width"] / stage["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    beside = legend["x"] >= stage["x"] + stage["width"]
    assert beside == (width > 860)
    if pictures:
        opened.screenshot(path=pictures / f"view-{width}.png", full_page=True)


def test_dark_is_dark_and_light_is_light(browser: Browser, tmp_path: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        tab = context.new_page()
        show(tab, tmp_path, shown())
        code = "() => getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
        grounds.append(max(tab.evaluate(code)))
        context.close()
    assert grounds[0] > 230
    assert grounds[1] < 40
