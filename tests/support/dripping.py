"""Receivers that answer a byte at a time and never end, each at an address of its own."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import Self

_EVERY_S = 0.05


class Dripping:
    """One port at `count` loopback addresses. Sends `first` once a request begins, then `again`."""

    def __init__(
        self, count: int = 1, *, first: bytes, again: bytes = b"x", network: int = 1
    ) -> None:
        """network: the addresses are 127.0.`network`.1 and following."""
        self._first = first
        self._again = again
        self.addresses = [f"127.0.{network}.{n + 1}" for n in range(count)]
        self.connected: set[str] = set()  # addresses that somebody is connected to
        self.most_at_once = 0
        self._stop = threading.Event()
        self._listeners: list[socket.socket] = []
        self._held: dict[socket.socket, str] = {}
        port = 0
        for address in self.addresses:
            listener = socket.create_server((address, port))
            port = listener.getsockname()[1]
            self._listeners.append(listener)
        self.port = port
        self._thread = threading.Thread(target=self._serve)

    @property
    def endpoint_url(self) -> str:
        return self.url(0, "")

    def url(self, number: int, path: str = "/") -> str:
        return f"http://{self.addresses[number]}:{self.port}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for one in self._held:
            one.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listener, address in zip(self._listeners, self.addresses, strict=True):
                selector.register(listener, selectors.EVENT_READ, address)
            while not self._stop.is_set():
                for key, _ in selector.select(_EVERY_S):
                    if key.fileobj in self._listeners:
                        near, _ = key.fileobj.accept()  # type: ignore[union-attr]
                        selector.register(near, selectors.EVENT_READ, key.data)
                        continue
                    near = key.fileobj  # type: ignore[assignment]
                    selector.unregister(near)
                    self._held[near] = key.data
                    self._send(near, self._first)
                if not self._stop.wait(_EVERY_S):
                    for near in list(self._held):
                        self._send(near, self._again)
                self.connected = set(self._held.values())
                self.most_at_once = max(self.most_at_once, len(self._held))
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]

    def _send(self, near: socket.socket, data: bytes) -> None:
        try:
            near.sendall(data)
        except OSError:  # the other side has ended the call
            self._held.pop(near)
            near.close()
