"""The waits of all threads of a client: one thread reads one subscribed connection for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from redis.connection import Connection, ConnectionPool

from maskq.client.waiting.waits import OUTAGE_S, RETRY_S, Wait, Waits
from maskq.errors import ClientUnusable
from maskq.ledger import Ledger
from maskq.ledger.calls import Call

_IDLE_S = 2.0  # that the thread stays when there are no waits
_MESSAGES = 1000  # read at most before records are read


class WakeThread:
    """Thread-safe. The thread runs while there are waits; the connection stays until `close`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waits = Waits()
        self._lock = threading.Lock()  # guards the waits and the thread; held briefly
        self._sending = threading.Lock()  # guards writing to the connection
        self._connection: Connection | None = None  # subscribed
        self._pool: ConnectionPool | None = None  # that the connection belongs to
        self._broken = False  # sending failed
        self._thread: threading.Thread | None = None

    def wait(
        self,
        channel: str,
        call: Call[Any],
        ready: Callable[[Any], bool],
        timeout_s: float | None,
    ) -> tuple[bool, Any]:
        """Returns whether the answer was ready in time, and the answer. Raises what the call raises."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        over = threading.Event()
        wait = Wait(channel, call, ready, over.set)
        with self._lock:
            self._waits.add(wait)
        try:
            while not over.is_set():
                self._ensure_thread()
                self._send_changes()
                left_s = OUTAGE_S if end is None else min(end - time.monotonic(), OUTAGE_S)
                if left_s <= 0:
                    return False, None
                over.wait(left_s)
            return True, wait.result()
        finally:
            with self._lock:
                self._waits.remove(wait)
            self._send_changes()

    def close(self) -> None:
        """End all waits and release the connection."""
        with self._lock:
            self._waits.fail(ClientUnusable("the client was closed while a wait was in progress"))
            thread = self._thread
        if thread is None:
            self._drop()
        elif connection := self._connection:
            self._break(connection)
            thread.join(timeout=_IDLE_S)

    def _ensure_thread(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._serve, name="maskq-wake", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        last = time.monotonic()
        try:
            while True:
                with self._lock:
                    if self._waits:
                        last = time.monotonic()
                    elif self._connection is None or time.monotonic() > last + _IDLE_S:
                        self._thread = None
                        return
                    next_s = self._waits.next_s()
                self._receive(next_s)
                with self._lock:
                    due = self._waits.due()
                if due:
                    self._look(due)
        except Exception as error:  # noqa: BLE001 - no wait must outlive the thread
            with self._lock:
                self._waits.fail(error)
                self._thread = None

    def _look(self, due: list[Wait]) -> None:
        outcomes: list[Any]
        try:
            outcomes = list(self._ledger.run_each([wait.call for wait in due]))
        except Exception as error:  # noqa: BLE001 - each wait handles it
            outcomes = [error] * len(due)
        with self._lock:
            again = self._waits.took(due, outcomes)
        if again:
            time.sleep(RETRY_S)

    # --- the connection: only the thread reads it, opens it and releases it --------------------------

    def _receive(self, timeout_s: float) -> None:
        try:
            connection = self._connection or self._connect()
            self._send_changes()  # of waits that began while this thread was sending
            messages: list[Any] = []
            if connection.can_read(timeout=timeout_s):
                while len(messages) < _MESSAGES:
                    messages.append(connection.read_response(disconnect_on_error=False))
                    if not connection.can_read(timeout=0):
                        break
            with self._lock:
                for message in messages:
                    self._waits.heard(message)
                ping, lost = self._waits.ping_is_due(), self._waits.is_lost
            if lost or self._broken:
                raise ConnectionError("the subscribed connection is lost")
            if ping:
                with self._sending:
                    connection.send_command("PING", check_health=False)
        except Exception:  # noqa: BLE001 - any error leads to a new connection
            self._drop()
            time.sleep(RETRY_S)

    def _connect(self) -> Connection:
        self._pool = self._ledger.redis.connection_pool
        connection = self._pool.get_connection()
        with self._sending:
            self._connection, self._broken = connection, False
            with self._lock:
                commands = self._waits.connected()
            for command in commands:
                connection.send_command(*command, check_health=False)
        return connection

    def _drop(self) -> None:
        with self._sending:
            connection, self._connection = self._connection, None
        if connection is not None and self._pool is not None:
            connection.disconnect()
            self._pool.release(connection)

    def _send_changes(self) -> None:
        """Send all threads' changes, unless another thread is doing so."""
        while self._connection is not None and self._waits.has_changes:
            if not self._sending.acquire(blocking=False):
                return
            try:
                if connection := self._connection:
                    self._send(connection)
            finally:
                self._sending.release()

    def _send(self, connection: Connection) -> None:
        with self._lock:
            commands = self._waits.changes()
        try:
            for command in commands:
                connection.send_command(*command, check_health=False)
        except Exception:  # noqa: BLE001 - the thread reconnects and subscribes again
            self._break(connection)

    def _break(self, connection: Connection) -> None:
        """Make the thread drop the connection."""
        self._broken = True
        connection.disconnect()
