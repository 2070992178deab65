"""What a check is: it looks at one area and yields findings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from maskq.settings import Settings


class Role(StrEnum):
    """A kind of process. Its settings decide what it needs of Redis and the object store."""

    CLIENT = "client"  # calls a gateway
    PUBLISHER = "publisher"  # a backend that submits, waits, lists, cancels, deletes
    READER = "reader"
    WORKER = "worker"
    WEBHOOKS = "webhooks"
    GATEWAY = "gateway"


REACHES_REDIS = frozenset(Role) - {Role.CLIENT}
REACHES_STORE = frozenset({Role.PUBLISHER, Role.WORKER, Role.GATEWAY})


class Level(StrEnum):
    """What a finding means."""

    OK = "ok"
    WARNING = "warning"  # it works, but not as it should
    TROUBLE = "trouble"  # jobs fail, wait or may be lost
    UNKNOWN = "unknown"  # the check could not be made


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `do`: a command or setting that helps."""

    name: str
    level: Level
    found: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What is examined."""

    role: Role
    settings: Settings  # of Redis and the object store


class Check(ABC):
    """One area. `run` is called once, only for one of `roles`."""

    area: ClassVar[str]
    roles: ClassVar[frozenset[Role]]

    @abstractmethod
    def run(self, target: Target) -> Iterator[Finding]:
        """Look, and yield what is found. What cannot be looked at is yielded as UNKNOWN."""


def ok(name: str, found: str) -> Finding:
    return Finding(name, Level.OK, found)


def warning(name: str, found: str, do: str) -> Finding:
    return Finding(name, Level.WARNING, found, do)


def trouble(name: str, found: str, do: str) -> Finding:
    return Finding(name, Level.TROUBLE, found, do)


def unknown(name: str, found: str, do: str = "") -> Finding:
    return Finding(name, Level.UNKNOWN, found, do)
