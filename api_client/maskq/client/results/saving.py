"""Writing a result's files to a folder: whole, and never over another file's content by accident."""

from __future__ import annotations

from pathlib import Path

from maskq.contract.ids import new_token
from maskq.errors import InvalidRequest


def write_file(path: Path, body: bytes, *, overwrite: bool) -> None:
    """Write a whole file. A file that has this content already remains.

    Raises InvalidRequest if the file cannot be written, or exists with other content and `overwrite`
    is not set.
    """
    part = path.with_name(f".{path.name}.{new_token()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(body)
            if overwrite:
                part.replace(path)
            else:
                _name_new(part, path)
        except FileExistsError:
            if path.read_bytes() != body:
                raise InvalidRequest(
                    f"{path} exists and has other content; choose another folder or name, or "
                    f"overwrite it"
                ) from None
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}") from error


def _name_new(part: Path, path: Path) -> None:
    """Give a file its name. Raises FileExistsError, also if another process was faster."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError from None
        part.rename(path)
