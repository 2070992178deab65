"""`python -m tools.page_pictures`: writes docs/images/page-light.png and page-phone.png.

A stack with the demo model segments a few drawn scenes; Chromium shows them on the gateway's page.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from demo_scenes.scenes import draw
from PIL import Image
from playwright.sync_api import sync_playwright

from maskq import Client, NamedImage
from maskq_standalone.stack import Stack

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Page

IMAGES = Path(__file__).parents[1] / "docs" / "images"
BROKEN = b"\x89PNG\r\n\x1a\n no image"
WITHIN_MS = 120_000.0


def main() -> None:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with Stack(workers=1, http_api=True, log_level="WARNING") as stack:
        os.environ.update(stack.environment)
        with Client.from_env(transport="direct") as client, sync_playwright() as playwright:
            streets = [NamedImage(f"street-{n}.jpg", jpeg(n, (480, 360))) for n in (21, 33, 45)]
            outputs = {"mask", "overlay", "stats", "confidence"}
            client.submit_many(streets, outputs=outputs).wait(timeout=WITHIN_MS / 1000)
            key = client.create_api_key(["submit", "read"]).text
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = browser.new_page(viewport={"width": 1400, "height": 860})
            tab.goto(os.environ["MASKQ_GATEWAY_URL"])
            tab.get_by_label("API key").fill(key)
            tab.get_by_role("button", name="Continue").click()
            take(tab)
            browser.close()


def take(tab: Page) -> None:
    """Both pictures, after the page has sent images of its own."""
    names = {"harbour road.jpg": 7, "old town.jpg": 314, "mountain road.jpg": 11}
    files: list[FilePayload] = [
        {"name": "notes.png", "mimeType": "image/png", "buffer": BROKEN},
        *({"name": name, "mimeType": "image/jpeg", "buffer": jpeg(n)} for name, n in names.items()),
    ]
    for file in files:  # one after the other, so that no job waits
        tab.set_input_files("#files", [file])
        ended = tab.locator("#jobs .row:is([data-status=succeeded], [data-status=failed])")
        ended.filter(has_text=file["name"]).first.wait_for(timeout=WITHIN_MS)
    tab.locator("#jobs .row", has_text="mountain road.jpg").locator("a.open").click()
    tab.wait_for_selector(".stage[data-ready]", timeout=WITHIN_MS)
    tab.locator(".stage").hover(position={"x": 520, "y": 100})
    tab.wait_for_timeout(1000)
    save(tab.screenshot(), "page-light.png")
    tab.mouse.move(2, 2)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_timeout(1000)
    save(tab.screenshot(), "page-phone.png")


def save(picture: bytes, name: str) -> None:
    """With a palette, which halves the file."""
    with Image.open(io.BytesIO(picture)) as opened:
        opened.convert("RGB").quantize(256).save(IMAGES / name, optimize=True)


def jpeg(seed: int, size: tuple[int, int] = (960, 720)) -> bytes:
    buffer = io.BytesIO()
    draw(seed, size=size).image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
