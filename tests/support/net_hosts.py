"""Two or more hosts on one machine: network namespaces, each with a cable that can be pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class NoNamespaces(Exception):
    """This process cannot make network namespaces; the text says why."""


@dataclass(frozen=True)
class NetHost:
    """A namespace. `gateway` is the address of this machine as the namespace sees it."""

    name: str
    gateway: str
    cable: str  # this machine's end of it

    def command(self, *words: str) -> tuple[str, ...]:
        """The command that runs there. It keeps its process id."""
        return ("ip", "netns", "exec", self.name, *words)

    def pull_cable(self) -> None:
        """From now on packets are lost in both directions, without a word to either side."""
        _ip("link", "set", self.cable, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self.cable, "up")


@contextmanager
def net_host(number: int) -> Iterator[NetHost]:
    """A namespace for the block. Raises NoNamespaces.

    number: of the host, unique on this machine among the hosts of this process.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise NoNamespaces("network namespaces need root and the command `ip` (package iproute2)")
    name = f"mq{os.getpid() % 100_000}h{number}"
    subnet = f"10.{os.getpid() % 250}.{100 + number}"
    host = NetHost(name, f"{subnet}.1", f"{name}a")
    try:
        _ip("netns", "add", name)
        _ip("link", "add", host.cable, "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("address", "add", f"{subnet}.1/24", "dev", host.cable)
        _ip("link", "set", host.cable, "up")
        _ip("-n", name, "address", "add", f"{subnet}.2/24", "dev", f"{name}b")
        for device in ("lo", f"{name}b"):
            _ip("-n", name, "link", "set", device, "up")
        yield host
    finally:
        for words in (("link", "del", host.cable), ("netns", "del", name)):
            subprocess.run(["ip", *words], capture_output=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise NoNamespaces(f"`ip {' '.join(words)}`: {done.stderr.strip()}")
