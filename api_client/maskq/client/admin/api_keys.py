"""Creating, listing and revoking API keys; needs access to Redis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from maskq.client.operations.flow import Flow, operation
from maskq.contract.api_keys import ApiKey, Credentials, NewKey, Scope
from maskq.errors import InvalidRequest, JobNotFound
from maskq.ledger.calls import api_keys
from maskq.validation import sentence

if TYPE_CHECKING:
    from maskq.client.session import Session


class ApiKeyOperations:
    """Mixed into both clients."""

    session: Session

    @operation
    def create_api_key(
        self,
        scopes: Iterable[Scope | str],
        *,
        name: str = "",
        tenant: str | None = None,
        requests_per_minute: int | None = None,
        expires_in: float | None = None,
    ) -> Flow[NewKey]:
        """Create an API key for the HTTP API. Only the returned object has its text.

        `scopes`: 'submit', 'read', 'admin'. `tenant`: the key is for this tenant's jobs only.
        `requests_per_minute`: HTTP requests; default: no limit. `expires_in`: seconds; default: never.
        Raises InvalidRequest.
        """
        if expires_in is not None and not 0 < expires_in < 100 * 366 * 86_400:
            raise InvalidRequest(f"a key cannot expire in {expires_in:g} s; give seconds from now")
        credentials, text = Credentials.new()
        wanted = {
            "id": credentials.id,
            "name": name,
            "scopes": list(scopes),
            "tenant": tenant,
            "requests_per_minute": requests_per_minute,
        }
        try:
            key = ApiKey.model_validate(wanted)
        except ValidationError as error:
            raise InvalidRequest(sentence(error)) from None
        stored: ApiKey = yield api_keys.create(key, credentials.digest, expires_in)
        return NewKey(stored, text)

    @operation
    def api_keys(self) -> Flow[Sequence[ApiKey]]:
        """All API keys, the oldest first, without their text, including expired ones."""
        found: Sequence[ApiKey] = yield api_keys.each()
        return found

    @operation
    def revoke_api_key(self, key_id: str) -> Flow[None]:
        """Revoke an API key, immediately and permanently. Raises JobNotFound for an unknown id."""
        if not (yield api_keys.revoke(key_id)):
            raise JobNotFound(key_id, kind="API key")
