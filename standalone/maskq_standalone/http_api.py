"""The HTTP API of the stack: a gateway process, and the admin key for its callers."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from maskq.contract import api_keys as contract
from maskq.contract.api_keys import ApiKey, Scope
from maskq.errors import MaskqError
from maskq.ledger import Ledger
from maskq.ledger.calls import api_keys
from maskq.settings import Settings
from maskq_standalone.children.child import ChildError
from maskq_standalone.ports import LOOPBACK


def command(port: int) -> tuple[str, ...]:
    """The command that serves the API on this port of 127.0.0.1."""
    return (sys.executable, "-m", "maskq", "gateway", "--host", LOOPBACK, "--port", str(port))


def settings(port: int, api_key: str) -> dict[str, str]:
    """The variables that callers of the API need."""
    return {"MASKQ_GATEWAY_URL": f"http://{LOOPBACK}:{port}", "MASKQ_API_KEY": api_key}


def install_key(environment: Mapping[str, str], api_key: str) -> None:
    """Store the stack's own key in its Redis, at every start. Raises ChildError."""
    parts = contract.Credentials.parse(api_key)
    if parts is None:
        raise ChildError("the API key in credentials.json is not a key; remove the line api_key")
    prefix = environment.get("MASKQ_KEY_PREFIX") or Settings.model_fields["key_prefix"].default
    key = ApiKey(id=parts.id, name="maskq up", scopes=frozenset({Scope.ADMIN}))
    ledger = Ledger(environment["MASKQ_REDIS_URL"], prefix)
    try:
        ledger.run(api_keys.create(key, parts.digest, None))
    except MaskqError as error:
        raise ChildError(f"the API key cannot be stored: {error}") from None
    finally:
        ledger.close()
