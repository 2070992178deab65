"""Parses MASKQ_REDIS_URL: Redis' address and how to connect.

Client, worker, webhooks and gateway all connect by a `RedisUrl` (pools.py), so a URL means the same in
each of them. docs/redis.md lists the accepted forms.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from maskq.errors import InvalidRequest

if TYPE_CHECKING:
    from maskq.settings import Settings

NAME: Final = "MASKQ_REDIS_URL"
# The longest time that a command blocks at the server. It must stay below every socket timeout.
LONGEST_WAIT_S: Final = 4.0
_SOONEST_TIMEOUT_S = 5.0
_PORT, _SENTINEL_PORT = 6379, 26379
_TLS = frozenset({"rediss", "sentinels"})
_SENTINEL = frozenset({"sentinel", "sentinels"})
_UNIX = frozenset({"unix", "redis+socket"})  # kombu writes redis+socket
_SCHEMES = ("redis", "rediss", "unix", "sentinel", "sentinels", "redis+socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisUrl:
    """Redis' address, the user, and the options of connections."""

    hosts: tuple[tuple[str, int], ...] = ()  # (host, port); with `service` the Sentinels'
    path: str = ""  # of a Unix socket; `hosts` is then empty
    service: str = ""  # the primary's name in Sentinel; empty: without Sentinel
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: Mapping[str, Any] | None = None  # redis-py's ssl_* options; None: no TLS
    options: Mapping[str, Any] = field(default_factory=dict)  # of redis-py's connections
    max_connections: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the URL of a deployment's settings. Raises InvalidRequest."""
        return cls.parse(settings.redis_url.get_secret_value(), settings.redis_ca_file)

    @classmethod
    def parse(cls, url: str, ca_file: Path | None = None) -> Self:
        """Read a URL. Raises InvalidRequest, whose one line contains no password.

        ca_file: the CA certificates to trust if the URL has no `ssl_ca_certs`.
        """
        first, *more = (_split(part) for part in _parts(url))
        scheme = first.scheme
        query = _Query(first, *more)
        for part in (first, *more):
            if part.scheme != scheme:
                _refuse(f"mixes {scheme}:// and {part.scheme}://")
        tls = query.tls_options() if scheme in _TLS else None
        if tls is not None and ca_file and "ssl_ca_certs" not in tls:
            tls["ssl_ca_certs"] = str(ca_file)
        named = [part for part in (first, *more) if part.username or part.password]
        user = named[0] if named else first
        service = ""
        if scheme in _SENTINEL:
            service = query.take("master_name") or _refuse(
                "names no service to ask the Sentinels for: add ?master_name=NAME"
            )
        parsed = cls(
            hosts=() if scheme in _UNIX else tuple(_address(part) for part in (first, *more)),
            path=_socket_path(first) if scheme in _UNIX else "",
            service=service,
            db=query.db([] if scheme in _UNIX else [part.path for part in (first, *more)]),
            username=_decoded(user.username) or query.take("username"),
            password=_decoded(user.password) or query.take("password"),
            sentinel_username=query.take("sentinel_username") if service else None,
            sentinel_password=query.take("sentinel_password") if service else None,
            tls=tls,
            max_connections=query.max_connections(),
            options=query.options(),
        )
        query.refuse_rest()
        return parsed

    @property
    def place(self) -> str:
        """The address to show in messages, without user and password."""
        if self.path:
            return f"{self.path} (database {self.db})"
        hosts = ", ".join(_shown(host, port) for host, port in self.hosts)
        if self.service:
            return f"{self.service!r} of Sentinel {hosts} (database {self.db})"
        return f"{hosts}/{self.db}"


def _refuse(what: str) -> NoReturn:
    raise InvalidRequest(f"{NAME} {what}")


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(url: str) -> list[str]:
    """The URL, or one URL per Sentinel of `sentinel://a:1;sentinel://b:1/0`, which is kombu's form."""
    scheme, separator, rest = url.strip().partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        _refuse(
            "is not a URL of a Redis: it is redis://USER:PASSWORD@HOST:PORT/0, rediss:// with TLS, "
            "unix:///PATH, or sentinel://HOST:PORT;sentinel://HOST:PORT/0?master_name=NAME; "
            "clusters are not supported"
        )
    if scheme.lower() not in _SENTINEL:
        return [url.strip()]
    parts = [part for part in rest.split(";") if part]
    return [part if "://" in part else f"{scheme}://{part}" for part in parts] or [url]


def _split(url: str) -> SplitResult:
    try:
        part = urlsplit(url)
        _ = part.port
    except ValueError:  # do not repeat its text, which may contain a part of the password
        part = None
    if (
        part is None
        or part.fragment
        or ("@" in part.path and part.scheme not in _UNIX)
        or any("@" in name for name, _ in parse_qsl(part.query, keep_blank_values=True))
        or (part.hostname is None and "@" in url.partition("?")[0] and part.scheme not in _UNIX)
    ):
        _refuse(
            "is not a valid URL: percent-encode special characters of the user name and the password "
            "(%2F for /, %40 for @)"
        )
    return part


def _address(part: SplitResult) -> tuple[str, int]:
    default = _SENTINEL_PORT if part.scheme in _SENTINEL else _PORT
    return unquote(part.hostname or "localhost"), part.port or default


def _socket_path(part: SplitResult) -> str:
    if part.hostname or not part.path.strip("/"):
        _refuse("names no Unix socket: a path has three slashes, unix:///run/redis.sock?db=0")
    return unquote(part.path)


def _decoded(text: str | None) -> str | None:
    return unquote(text) if text else None


def _seconds(at_least: float, why: str = "") -> Callable[[str], float]:
    def parse(text: str) -> float:
        seconds = float(text)
        if not at_least <= seconds < float("inf"):
            raise ValueError(f"is at least {at_least:g} seconds{why}")
        return seconds

    return parse


def _whole(at_least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < at_least:
            raise ValueError(f"is at least {at_least}")
        return number

    return parse


def _truth(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in known:
        raise ValueError("is true or false")
    return known[text.lower()]


def _word(text: str) -> str:
    if not text.isprintable() or " " in text or not text:
        raise ValueError("is one word")
    return text


def _protocol(text: str) -> int:
    if text != "2":
        raise ValueError("is 2: workers speak no other")
    return 2


def _file(text: str) -> str:
    if not Path(text).exists():
        raise ValueError(f"names {text}, which is not there")
    return text


def _verification(text: str) -> str:
    """Accepts redis-py's words (`required`) and Celery's (`CERT_REQUIRED`)."""
    word = text.lower().removeprefix("cert_")
    if word not in ("required", "optional", "none"):
        raise ValueError("is required, optional or none")
    return word


_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "socket_timeout": _seconds(
        _SOONEST_TIMEOUT_S, f": commands wait up to {LONGEST_WAIT_S:g} s at the server"
    ),
    "socket_connect_timeout": _seconds(0.1),
    "socket_keepalive": _truth,
    "health_check_interval": _whole(0),
    "client_name": _word,
    "protocol": _protocol,
}
_TLS_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "ssl_ca_certs": _file,
    "ssl_ca_path": _file,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_password": str,
    "ssl_cert_reqs": _verification,
    "ssl_check_hostname": _truth,
}
_OTHERS: Final = ("db", "username", "password", "max_connections")
_OF_SENTINEL: Final = ("master_name", "sentinel_username", "sentinel_password")


class _Query:
    """The query of a URL. Code that knows a parameter takes it; what is left at the end is unknown."""

    def __init__(self, *parts: SplitResult) -> None:
        self._left: dict[str, str] = {}
        self._scheme = parts[0].scheme
        for part in parts:
            for name, value in parse_qsl(part.query, keep_blank_values=True):
                if self._left.setdefault(name, value) != value:
                    _refuse(f"says {name} twice")
        if self._scheme == "redis+socket" and "virtual_host" in self._left:  # kombu's name for db
            self._left.setdefault("db", self._left.pop("virtual_host"))

    def take(self, name: str) -> str | None:
        return self._left.pop(name, None)

    def tls_options(self) -> dict[str, Any]:
        return self._parsed(_TLS_OPTIONS)

    def options(self) -> dict[str, Any]:
        return self._parsed(_OPTIONS)

    def max_connections(self) -> int | None:
        found: dict[str, int] = self._parsed({"max_connections": _whole(1)})
        return found.get("max_connections")

    def db(self, paths: list[str]) -> int:
        """The database by path or `?db=`. Refuses a URL in which they differ."""
        said = {path.strip("/") for path in paths if path.strip("/")}
        if (named := self.take("db")) is not None:
            said.add(named)
        if len(said) > 1:
            _refuse(f"names several databases: {', '.join(sorted(said))}")
        number = next(iter(said), "0")
        if not (number.isascii() and number.isdigit()):
            _refuse(
                f"names database {number!r}: it is a number, as in redis://HOST:PORT/3 or ?db=3"
            )
        return int(number)

    def refuse_rest(self) -> None:
        """Refuse unknown parameters instead of ignoring them silently."""
        for name in self._left:
            if name in _TLS_OPTIONS:
                _refuse(f"has {name}, but does not ask for TLS: write rediss:// (sentinels://)")
            if name in _OF_SENTINEL:
                _refuse(f"has {name}, which is for sentinel:// only")
            known = [*_OPTIONS, *_TLS_OPTIONS, *_OTHERS, *_OF_SENTINEL]
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            _refuse(f"has an unknown parameter {name!r}; {hint}")

    def _parsed(self, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, parse in known.items():
            if (text := self.take(name)) is None:
                continue
            try:
                found[name] = parse(text)
            except ValueError as error:
                said = str(error)
                why = said if said.startswith(("is ", "names ")) else "is a number"
                _refuse(f"has {name}={text}: it {why}")
        return found
