"""The HTTP servers, started and called by a client of many threads."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from bench.peers.contender import WAIT_S, Peer
from maskq_standalone.children.child import ChildError

AT_ONCE = 64  # requests under way
POLL_S = 0.05  # between looks at a task
_opener = build_opener(ProxyHandler({}))  # never through a proxy: it is on this machine


class HttpPeer(Peer):
    health: str

    @abstractmethod
    def ask(self, key: str) -> str:
        """The key of the mask."""

    def ready(self) -> bool:
        try:
            with _opener.open(f"{self.url}{self.health}", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def run(self, keys: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(min(AT_ONCE, len(keys))) as threads:
            return [*threads.map(self.ask, keys)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.setup.port}"

    def post(self, path: str, body: Any) -> Any:
        return self._answer(path, json.dumps(body).encode())

    def get(self, path: str) -> Any:
        return self._answer(path, None)

    def _answer(self, path: str, body: bytes | None) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(self.url + path, body, headers)  # noqa: S310 -- the address is our own
        with _opener.open(request, timeout=WAIT_S) as answer:
            return json.load(answer)


class LitServe(HttpPeer):
    health = "/health"

    def command(self) -> Sequence[str]:
        return ["bench.peers.litserve_server"]

    def ask(self, key: str) -> str:
        return str(self.post("/predict", {"key": key})["mask"])

    def pause(self) -> None:
        """Waiting for requests, its batching loop takes a fifth of a core."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self.go_on()  # a stopped process takes no SIGTERM
        super().stop()

    def _signal(self, number: signal.Signals) -> None:
        if self.child and self.child.alive:
            os.killpg(self.child.pid, number)


class BentoML(HttpPeer):
    health = "/readyz"
    service = "bentoml_service"
    training = 16  # requests a process: its dispatcher trains on 11

    def command(self) -> Sequence[str]:
        where = ["--host", "127.0.0.1", "--port", str(self.setup.port)]
        return ["bentoml", "serve", f"bench.peers.{self.service}:Segmentation", *where]

    def environment(self) -> Mapping[str, str]:
        return {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": self._home.name}

    def start(self) -> None:
        self._home = tempfile.TemporaryDirectory()
        super().start()

    def prepare(self) -> None:
        for _ in range(self.training * self.setup.processes):
            self.ask("")

    def ask(self, key: str) -> str:
        (mask,) = self.post("/segment", {"keys": [key]})
        return str(mask)

    def stop(self) -> None:
        super().stop()
        if hasattr(self, "_home"):
            self._home.cleanup()


class BentoMLTasks(BentoML):
    """Submits all images, then asks for each in order until it is done."""

    service = "bentoml_tasks"
    training = 0  # it gathers no batches

    def run(self, keys: Sequence[str]) -> list[str]:
        tasks = [str(self.post("/segment/submit", {"key": key})["task_id"]) for key in keys]
        return [self._mask(task) for task in tasks]

    def _mask(self, task: str) -> str:
        give_up_at = time.monotonic() + WAIT_S
        while (status := self.get(f"/segment/status?task_id={task}")["status"]) != "completed":
            if status in ("failed", "canceled") or time.monotonic() > give_up_at:
                raise ChildError(f"BentoML's task {task} is {status}")
            time.sleep(POLL_S)
        (mask,) = self.get(f"/segment/get?task_id={task}")
        return str(mask)
