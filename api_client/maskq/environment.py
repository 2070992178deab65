"""The MASKQ_ variables of this process: NAME holds a value, or NAME_FILE a file with the value.

Files are for secrets: other processes of the same user, `docker inspect` and crash reports can read the
environment.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from maskq.errors import InvalidRequest

PREFIX: Final = "MASKQ_"
SUFFIX: Final = "_FILE"
_MAX_BYTES = 65_536


def value(name: str) -> str | None:
    """The value of a MASKQ_ variable or its file; None if it is unset or empty.

    Raises InvalidRequest if both NAME and NAME_FILE are set, or the file cannot be read.
    """
    text = os.environ.get(name, "").strip()
    path = os.environ.get(name + SUFFIX, "").strip()
    if text and path:
        raise _both(name)
    return _contents(name + SUFFIX, path) if path else text or None


def given_by_file(name: str) -> bool:
    """Whether NAME_FILE is set."""
    return bool(os.environ.get(name + SUFFIX, "").strip())


def refuse_both(known: Collection[str]) -> None:
    """Raise InvalidRequest if NAME and NAME_FILE are set. known: settings in lower case, no MASKQ_."""
    for setting in known:
        name = PREFIX + setting.upper()
        if given_by_file(name) and os.environ.get(name, "").strip():
            raise _both(name)


def resolved(known: Collection[str], *, leave_out: Collection[str] = ()) -> dict[str, str]:
    """All MASKQ_ variables that are set, with files read, for a child process.

    known: settings in lower case, without MASKQ_. leave_out: MASKQ_ names to skip, files too.
    Raises InvalidRequest.
    """
    found = {}
    for name in os.environ:
        if name.startswith(PREFIX):
            setting = setting_of(name, known)
            plain = PREFIX + setting.upper() if setting else name
            text = None if plain in leave_out else value(plain)
            if text:
                found[plain] = text
    return found


def setting_of(name: str, known: Collection[str]) -> str | None:
    """The setting that the variable NAME or NAME_FILE sets; None if it is unknown."""
    setting = name.removeprefix(PREFIX).lower()
    if setting in known:
        return setting
    stem = setting.removesuffix(SUFFIX.lower())
    return stem if stem != setting and stem in known else None


def laid_over(environment: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `changes`; a changed NAME also removes NAME_FILE."""
    replaced = {name + SUFFIX for name in changes if name.startswith(PREFIX)}
    return {name: text for name, text in environment.items() if name not in replaced} | dict(
        changes
    )


def _contents(name: str, path: str) -> str:
    """A file's text without surrounding white space. Raises InvalidRequest."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode().strip()
    except OSError as error:
        raise InvalidRequest(f"{name}: cannot read {path!r}: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a path with a NUL
        raise InvalidRequest(f"{name}: {path!r} is not a text file in UTF-8") from None
    if len(raw) > _MAX_BYTES:
        raise InvalidRequest(f"{name}: {path!r} has more than {_MAX_BYTES} bytes")
    if not text:
        raise InvalidRequest(f"{name}: {path!r} is empty")
    if "\0" in text:
        raise InvalidRequest(f"{name}: {path!r} is not a text file")
    return text


def _both(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name} and {name}{SUFFIX} are both set: unset one of them")
