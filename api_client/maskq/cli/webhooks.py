"""maskq webhooks: list deliveries, deliver again, make a secret, run a test receiver."""

from __future__ import annotations

from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated

import typer

from maskq import environment, webhooks
from maskq.client.client import Client
from maskq.errors import InvalidRequest, WebhookRefused
from maskq.inert import print_error, print_json, print_lines

_LARGEST_BODY = 1 << 20

app = typer.Typer(no_args_is_help=True, help="Webhook deliveries, secrets and a test receiver.")


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="webhooks")


@app.command("list")
def list_deliveries(
    subject: Annotated[str, typer.Argument(help="a job or batch; default: all")] = "",
    state: Annotated[str | None, typer.Option(help="pending, delivered or failed")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="at most so many")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document on stdout")] = False,
) -> None:
    """List deliveries with their attempts, newest first."""
    with Client.from_env() as client:
        found = client.deliveries(subject, state=state, limit=limit)
    if as_json:
        print_json({"deliveries": [delivery.public() for delivery in found]})
        return
    for delivery in found:
        print_lines(f"{delivery.id}  {delivery.state.value:<9}  {delivery.url}")
        for attempt in delivery.log:
            at = datetime.fromtimestamp(attempt.at_ms / 1000, UTC)
            said = " ".join(str(part) for part in (attempt.status, attempt.error) if part)
            print_lines(f"    {at:%Y-%m-%d %H:%M:%S}  {attempt.took_ms} ms  {said}")


@app.command()
def redeliver(ids: Annotated[list[str], typer.Argument(help="as `list` shows them")]) -> None:
    """Deliver webhooks again, whatever their state."""
    with Client.from_env() as client:
        for delivery_id in ids:
            client.redeliver(delivery_id)
            print_lines(f"{delivery_id} is due")


@app.command()
def secret() -> None:
    """Print a new secret for MASKQ_WEBHOOK_SECRET."""
    print_lines(webhooks.new_secret())


@app.command()
def listen(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="on 127.0.0.1; 0: any free port")
    ] = 8099,
    count: Annotated[int | None, typer.Option(help="end after so many valid deliveries")] = None,
) -> None:
    """Run a test receiver: verify each delivery and print its event as a JSON line."""
    secret = environment.value(webhooks.SETTING)
    if not secret:
        raise WebhookRefused(f"set {webhooks.SETTING} to the secret that the deliverer signs with")
    webhooks.keys_of(secret)  # raises now if it is invalid, not at each delivery
    try:
        server = _Server(("127.0.0.1", port), _Receiver)
    except OSError as error:
        raise InvalidRequest(f"cannot listen on port {port}: {error.strerror}") from None
    with server:
        print_error(f"listening on http://127.0.0.1:{server.server_address[1]}/")
        while count is None or server.verified < count:
            server.handle_request()


class _Server(HTTPServer):
    verified = 0  # deliveries


class _Receiver(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10.0  # s; requests are handled one at a time, so a silent one must not block others

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            self._answer(413, "a body of at most a mebibyte, with its length")
            return
        body = self.rfile.read(int(length))
        try:
            event = webhooks.verify(dict(self.headers), body)
        except WebhookRefused as error:
            print_error(f"refused: {error}")
            self._answer(400, str(error))
            return
        print_json(event.model_dump(mode="json"))
        self.server.verified += 1
        self._answer(200, "thanks")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: do_POST prints."""
