"""What a Redis server says of itself, as far as its ACL allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from maskq.errors import MaskqError, StoreUnavailable
from maskq.ledger import Ledger
from maskq.ledger.calls import Call
from maskq.ledger.records import pairs

_CONFIG: Final = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
_INFO: Final = ("server", "persistence", "memory", "replication")


def facts(ledger: Ledger) -> Mapping[str, str]:
    """HELLO, INFO and CONFIG GET in one table, by the names that these give; without what is refused.

    Names of CONFIG win. Raises StoreUnavailable if the server goes away meanwhile.
    """
    found: dict[str, str] = {}
    calls: list[Call[Any]] = [Call(None, ("HELLO",), _table)]
    calls += [Call(None, ("INFO", section), _table) for section in _INFO]
    calls += [Call(None, ("CONFIG", "GET", name), _table) for name in _CONFIG]
    for call in calls:
        found |= _asked(ledger, call)
    return found


def _asked(ledger: Ledger, call: Call[dict[str, str]]) -> dict[str, str]:
    try:
        return ledger.run(call)
    except StoreUnavailable as error:
        if error.code == StoreUnavailable.code:
            raise
        return {}
    except MaskqError:
        return {}


def _table(answer: Any) -> dict[str, str]:
    if isinstance(answer, bytes | str):  # INFO, as text
        text = answer if isinstance(answer, str) else answer.decode()
        lines = (line.partition(":") for line in text.splitlines() if ":" in line)
        return {name: value.strip() for name, _, value in lines}
    table = answer if isinstance(answer, Mapping) else pairs(answer)
    return {str(name): str(value) for name, value in table.items()}
