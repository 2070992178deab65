"""The page of the gateway: its routes, its policy, its weight, and that the wheel has it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from support.http_api import Api, serving

from maskq_gateway import problems
from maskq_gateway.page import add_page
from maskq_gateway.page.routes import SHARED, page_files

ROOT = Path(__file__).parents[3]
LARGEST = 200_000  # bytes of all files together
LARGEST_SAMPLE = 25_000
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    app = FastAPI(openapi_url=None)
    problems.handle(app)
    add_page(app)
    with serving(app) as made:
        yield made


def paths() -> list[str]:
    return ["/", *(f"/page/{name}" for name in page_files() if name != "index.html")]


@pytest.mark.parametrize("path", paths())
def test_every_file_has_its_type_its_policy_and_an_etag(api: Api, path: str) -> None:
    answer = api.get(path)
    kind = path.rpartition(".")[2] if "." in path else "html"
    assert (answer.status, answer.headers["Content-Type"]) == (200, TYPES[kind])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-cache"
    again = api.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.data) == (304, b"")
    head = api.ask("HEAD", path)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(answer.data)))


def test_its_policy_allows_what_the_gateway_serves_and_nothing_inline(api: Api) -> None:
    header = api.get("/").headers["Content-Security-Policy"]
    policy = dict(rule.strip().split(" ", 1) for rule in header.split(";"))
    assert policy.pop("img-src") == "'self' blob: data:"
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "worker-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    text = api.get("/").data.decode()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]*\ssrc=)", text)


@pytest.mark.parametrize(
    "name", ["index.html", "routes.py", "missing.js", "..%2froutes.py", "%2e%2e/server.py", "a%00b"]
)
def test_other_files_are_not_found(api: Api, name: str) -> None:
    answer = api.get(f"/page/{name}")
    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_it_is_light() -> None:
    sizes = {name: len(file.body) for name, file in page_files().items()}
    assert sum(sizes.values()) < LARGEST, sizes
    assert max(size for name, size in sizes.items() if name.endswith(".jpg")) < LARGEST_SAMPLE


def test_it_names_no_other_site_and_no_file_that_is_missing() -> None:
    for name, file in page_files().items():
        if name.endswith(".jpg"):
            continue
        text = file.body.decode()
        text = re.sub(r"https://www\.w3\.org/TR/\S+", "", text)  # a comment's
        text = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"\b(https?|wss?):|[\"'(]//", text), name
        for asked in re.findall(r"(?:from|import) \"\./([\w.]+)\"|page/([\w.-]+\.\w+)", text):
            assert (asked[0] or asked[1]) in page_files(), (name, asked)


def test_a_wheel_contains_it(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(built) as wheel:
        names = set(wheel.namelist())
    own = {f"maskq_gateway/page/static/{name}" for name in page_files() if name not in SHARED}
    assert own | {f"maskq/view/{name}" for name in SHARED} <= names
