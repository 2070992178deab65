"""docs/reference/options.md, made from the contract's `JobOptions`."""

from __future__ import annotations

from enum import StrEnum

from maskq.contract.options import OPTIONS, Option

_HEAD = """# Options of a job

The Python client takes these options as keywords, `maskq submit` as flags, JSON bodies and multipart
forms as fields ([http.md](../http.md)), and trigger rules as keys ([triggers.md](../triggers.md)).
Durations are in seconds.

`python -m tools.reference` makes this page from the code.

| Python | JSON, rules | `maskq submit` | Type | Default | Meaning |
|---|---|---|---|---|---|
"""
_TYPES = {
    str: "text",
    float: "number",
    int: "integer",
    bool: "boolean",
    frozenset: "set of texts",
    dict: "object of texts",
}


def page() -> str:
    """The page as the file holds it."""
    return _HEAD + "".join(map(_row, OPTIONS))


def _row(option: Option) -> str:
    json_name = f"`{option.name}`" + (" (not in rules)" if option.is_per_image else "")
    cells = (
        f"`{option.keyword}`",
        json_name,
        "" if option.is_per_image else f"`{option.flag}`",
        _type(option),
        _default(option),
        option.meaning.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |\n"


def _type(option: Option) -> str:
    if issubclass(option.kind, StrEnum):
        return ", ".join(f"`{value}`" for value in option.kind)
    return _TYPES[option.kind]


def _default(option: Option) -> str:
    match option.default:
        case None | {}:
            return ""
        case bool() as value:
            return f"`{str(value).lower()}`"
        case frozenset() as values:
            return ", ".join(f"`{value}`" for value in sorted(values))
        case value:
            return f"`{value}`"
