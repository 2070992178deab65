"""A decoding process that does what the bytes of an image say: `python -m` of this module.

It is the real process with another `decode`: an image that begins with `crash:` and the like makes it
crash, everything else is decoded.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from maskq_worker.decoding import child
from maskq_worker.decoding.messages import Done
from maskq_worker.imaging import Decoded, decode

KEPT: list[bytearray] = []


def act(data: bytes, *, max_pixels: int, on_pixels: Callable[[int, int], object]) -> Decoded:
    order, _, argument = data.decode("latin-1").partition(":")
    if order not in ACTIONS:
        return decode(data, max_pixels=max_pixels, on_pixels=on_pixels)
    on_pixels(16, 0)
    told = ACTIONS[order](argument)
    return Decoded(Image.new("RGB", (4, 4)), "TEST", (json.dumps(told),))


def crash(signal_name: str) -> None:
    if signal_name != "SIGKILL":
        signal.signal(signal.Signals[signal_name], signal.SIG_DFL)
    os.kill(os.getpid(), signal.Signals[signal_name])


def leave(code: str) -> NoReturn:
    os._exit(int(code))


def spin(_: str) -> NoReturn:
    while True:
        pass


def burn(seconds: str) -> None:
    """Processor time."""
    end = time.process_time() + float(seconds)
    while time.process_time() < end:
        pass


def sleep(seconds: str) -> None:
    time.sleep(float(seconds))


def stop(_: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def eat(mebibytes: str) -> None:
    KEPT.append(bytearray(int(mebibytes) * 2**20))


def raise_(_: str) -> NoReturn:
    raise KeyError("a fault of ours")


def say(answer: str) -> NoReturn:
    """A message of an attacker's choice, instead of an answer; and then nothing."""
    worker_socket().send(answer.encode("latin-1"))
    time.sleep(60)
    raise SystemExit


def claim(sides: str) -> NoReturn:
    width, height = map(int, sides.split("x"))
    done = Done.model_construct(width=width, height=height, format="X", notes=(), grown=False)
    return say(done.model_dump_json())


def hang_up(_: str) -> NoReturn:
    worker_socket().shutdown(socket.SHUT_RDWR)
    time.sleep(60)
    raise SystemExit


def tell(_: str) -> dict[str, Any]:
    """What the process can see and do."""
    file = Path("/tmp", f"maskq-{os.getpid()}")
    heavy = ("torch", "transformers", "celery", "boto3", "botocore", "kombu")
    status = Path("/proc/self/oom_score_adj").read_text()
    return {
        "pid": os.getpid(),
        "environment": sorted(os.environ),
        "can write": _can(lambda: file.write_bytes(b"x")),
        "can shrink": _can(lambda: os.ftruncate(_argument("buffer"), 0)),
        "imported": [name for name in heavy if name in sys.modules],
        "files": _open_files(),
        "oom": int(status),
    }


def _can(do: Callable[[], object]) -> bool:
    try:
        do()
    except OSError:
        return False
    return True


def _argument(name: str) -> int:
    return next(int(a.partition("=")[2]) for a in sys.argv if a.startswith(f"--{name}="))


def _open_files() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(str(link.readlink()))
    return found


def worker_socket() -> socket.socket:
    return socket.socket(fileno=os.dup(_argument("socket")))


ACTIONS: dict[str, Callable[[str], Any]] = {
    "crash": crash, "leave": leave, "spin": spin, "burn": burn, "sleep": sleep, "stop": stop,
    "eat": eat, "raise": raise_, "say": say, "claim": claim, "hang up": hang_up, "tell": tell,
}  # fmt: skip

if __name__ == "__main__":
    child.decode = act  # type: ignore[assignment]
    child.main()
