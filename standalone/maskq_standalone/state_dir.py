"""A stack's directory: its lock, and the credentials generated for it.

credentials.json   0600, kept over restarts
lock               held while a process of a stack lives
redis/ s3/         data
logs/              one file per child
run/               health files
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
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
        """Those stored in `directory`; if there are none, new ones are stored. Raises ChildError."""
        path = directory / "credentials.json"
        try:
            if not path.exists():
                credentials = cls.generate()
                write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
                return credentials
            path.chmod(0o600)
            kept = json.loads(path.read_bytes())
            # An older version of maskq may have written the file without these.
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


class StateDir:
    """The directory of one stack. A second stack cannot use it at the same time."""

    def __init__(self, given: Path | None) -> None:
        """given: None: a temporary directory, removed at `close`."""
        self._given = given
        self._temporary = given is None
        self._lock: Lock | None = None

    path: Path  # from `open` on

    @property
    def is_open(self) -> bool:
        return self._lock is not None

    def open(self) -> None:
        """Make it if missing, and lock it. Raises ChildError."""
        try:
            if self._given is None:
                self.path = Path(tempfile.mkdtemp(prefix="maskq-"))
            else:
                self.path = self._given.absolute()
                self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ChildError(explain(error)) from None
        self._lock = Lock(self.path)
        self._lock.acquire()

    def held(self) -> list[int]:
        """The descriptor that holds the lock, for processes that must keep it locked."""
        return [self._lock.fd] if self._lock is not None else []

    def keep(self) -> None:
        """Do not remove it, even if it is temporary."""
        self._temporary = False

    def close(self) -> None:
        """Unlock it, and remove a temporary one. Idempotent."""
        if self._lock is None:
            return
        self._lock.release()
        self._lock = None
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)


class Lock:
    """An flock on DIR/lock. The kernel releases it when the last process that holds it ends."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        self.fd = -1

    def acquire(self) -> None:
        """Raises ChildError when another stack runs on the directory.

        After a stack was killed, its guards hold the lock until its children have ended. This waits
        for them, so that two servers never share one set of files.
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
        """The file stays: if it were removed, two stacks could hold two files of the same name."""
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
    """Whether a process with this id exists; 0: False."""
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
    """Write a 0600 file in one step: a reader sees the old file or the new one. Raises OSError."""
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
