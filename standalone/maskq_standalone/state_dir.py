"""The stack's directory: one stack at a time, and the credentials generated for it.

credentials.json   0600, kept over restarts      lock    held while anything of a stack lives
redis/ s3/         the data                      logs/   one file per child
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from maskq.contract import api_keys
from maskq.webhooks import new_secret
from maskq_standalone.children.child import POLL_S, ChildError, explain

ORPHANS_S = 6.0  # longer than a guard needs to end what a killed stack left


@dataclass(frozen=True)
class Credentials:
    """Generated once per directory, so that clients' settings stay valid over restarts."""

    redis_password: str
    s3_access_key_id: str
    s3_secret_access_key: str
    webhook_secret: str
    api_key: str  # of scope admin

    @classmethod
    def generate(cls) -> Credentials:
        return cls(
            redis_password=secrets.token_urlsafe(24),  # goes into a URL as it is
            s3_access_key_id="MASKQ" + secrets.token_hex(8).upper(),
            s3_secret_access_key=secrets.token_urlsafe(30),
            webhook_secret=new_secret(),
            api_key=new_api_key(),
        )

    @classmethod
    def of(cls, directory: Path) -> Credentials:
        """Those kept in `directory`, or new ones, kept there. Raises ChildError."""
        path = directory / "credentials.json"
        try:
            if not path.exists():
                credentials = cls.generate()
                write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
                return credentials
            path.chmod(0o600)
            kept = json.loads(path.read_bytes())
            # A directory may be older than one of these.
            made = {"webhook_secret": new_secret, "api_key": new_api_key}
            if missing := made.keys() - kept.keys():
                kept |= {name: made[name]() for name in sorted(missing)}
                write_private(path, json.dumps(kept, indent=2) + "\n")
            return cls(**{field.name: str(kept[field.name]) for field in fields(cls)})
        except OSError as error:
            raise ChildError(explain(error, path)) from None
        except (ValueError, KeyError, TypeError):
            raise ChildError(
                f"{path} cannot be read; without it the data beside it has no key"
            ) from None


def new_api_key() -> str:
    """The text of a new API key."""
    return api_keys.Credentials.new()[1]


class Lock:
    """An flock on DIR/lock. The kernel frees it when its last holder is gone, however it went."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        self.fd = -1

    def acquire(self) -> None:
        """Raises ChildError when another stack runs on the directory.

        After a stack was killed, its guards hold the lock until its children are gone: that is
        waited for, so that two servers never share one set of files.
        """
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ChildError(explain(error)) from None
        deadline = time.monotonic() + ORPHANS_S
        while not self._try():
            holder = self._holder()
            if is_running(holder) or time.monotonic() > deadline:
                self.release()
                directory = self.path.parent
                raise ChildError(f"{directory} is in use: a stack runs on it (process {holder})")
            time.sleep(POLL_S)
        self._sign()

    def release(self) -> None:
        """The file stays: to remove it would let two stacks hold two files of one name."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _sign(self) -> None:
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, str(os.getpid()).encode(), 0)
        except OSError as error:  # a full disk shows here first
            self.release()
            raise ChildError(explain(error, self.path)) from None

    def _holder(self) -> int:
        with contextlib.suppress(ValueError, OSError):
            return int(os.pread(self.fd, 20, 0) or b"0")
        return 0


def is_running(pid: int) -> bool:
    """Whether a process of this id exists; 0: nobody's."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_private(path: Path, text: str) -> None:
    """Write a 0600 file in one step: a reader sees all of it or none. Raises OSError."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
