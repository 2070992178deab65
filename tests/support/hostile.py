"""Text that does something to whoever prints it, and what must be true once it was printed."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Clears the screen, sets the title, forges a line, reorders, hides, C1 controls, separators, a byte.
HOSTILE = "a\x1b[2J\x1b]0;t\x07\r\nERROR forged\u202e\u2066\u200b\ufeff\x9b31m\x85\u2028\x7f\udce9z"
SECRET = "Xq7cdSECRET"
TEXT = HOSTILE.replace("\udce9", "")  # as it may stand in UTF-8
URL = f"https://user:{SECRET}@h.example/x"


def harmless(text: str) -> None:
    """Raises AssertionError for text that could do something to a terminal, a log or its reader."""
    assert SECRET not in text
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("ERROR forged")


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500)
        self.end_headers()
        self.wfile.write(TEXT.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
