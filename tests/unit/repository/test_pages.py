"""Every page: its links lead somewhere, and its code is run by a test or marked as shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import ROOT, SHOWN, blocks

from maskq import environment
from maskq.settings import PREFIX, known

PAGES = [
    "README.md", "CONTRIBUTING.md", "SECURITY.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]  # fmt: skip
# Pages whose blocks run, and the test that runs them.
RUN = {
    "README.md": "test_readme.py",
    "docs/http.md": "test_http_docs.py",
    "docs/masks.md": "test_masks_page.py",
    "docs/testing.md": "test_testing_page.py",
    **dict.fromkeys(
        [
            f"docs/{name}.md"
            for name in (
                "python",
                "command-line",
                "bulk",
                "webhooks-and-events",
                "checkpoints",
                "celery",
                "precision",
            )
        ],
        "test_guides.py",
    ),
}
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def links(page: str) -> Iterator[str]:
    text = _CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    yield from (one for one in _LINK.findall(text) if not re.match(r"https?:", one))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_page_lead_to_files_and_headings(page: str) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES)
def test_code_of_page_is_run_or_marked_as_shown(page: str) -> None:
    code = [one for one in blocks(page) if one.language in ("python", "sh")]
    left = [one.text for one in code if one.kind != SHOWN]
    assert not left or page in RUN


@pytest.mark.parametrize(("page", "test"), RUN.items())
def test_page_is_run_by_the_test_that_names_it(page: str, test: str) -> None:
    (path,) = (ROOT / "tests").rglob(test)
    assert Path(page).name in path.read_text(encoding="utf-8")


def test_index_names_every_page() -> None:
    index = {link.partition("#")[0] for link in links("docs/README.md")}
    pages = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}
    of_folders = {page for page in pages if page.startswith("decisions/")}
    assert pages - of_folders - index == {"README.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if not page.endswith("upgrading.md")])
def test_settings_that_page_names_exist(page: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]\b", (ROOT / page).read_text("utf-8")))
    placeholders = {"MASKQ_X", "MASKQ_X_FILE"}
    unknown = {name for name in named if environment.setting_of(name, known()) is None}
    assert unknown <= placeholders


def test_places_of_changes_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    places = re.findall(r"`(maskq\w*/[\w/.]+)`", text)
    packages = [path.parent for path in ROOT.glob("*/maskq*/__init__.py")]
    assert len(places) > 10
    assert [one for one in places if not any((it.parent / one).exists() for it in packages)] == []


@pytest.mark.parametrize("package", ["api_client/maskq/", "worker/maskq_worker/"])
def test_map_names_the_rooms_of_package(package: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| `{package}` \|(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([\w]+)/`", "".join(row.split("|")[1] for row in table.splitlines())))
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert named == rooms
