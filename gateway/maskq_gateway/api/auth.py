"""Who calls, by which API key, and whether that key allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from maskq import AsyncClient
from maskq.contract import JobRecord
from maskq.contract.api_keys import ApiKey, Credentials, Scope
from maskq.contract.failures import FailureCode
from maskq.contract.ids import is_own_id
from maskq.errors import JobNotFound
from maskq.ledger import calls
from maskq.ledger.calls import api_keys
from maskq_gateway.problems import Problem


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds an API key."""

    key: ApiKey

    @property
    def tenant(self) -> str | None:
        """The only tenant whose jobs this caller sees; None: it sees all."""
        return self.key.tenant

    def sees(self, tenant: str | None) -> bool:
        return self.key.tenant is None or self.key.tenant == tenant


@dataclass(frozen=True, slots=True)
class AskedJob:
    """The job that a path names, if the caller may see it."""

    caller: Caller
    job_id: str  # as the path has it: the id or an alias
    found: JobRecord | None

    @property
    def record(self) -> JobRecord:
        """Raises JobNotFound, also for a job of another tenant."""
        if self.found is None or not self.caller.sees(self.found.tenant):
            raise JobNotFound(self.job_id)
        return self.found


class Authorizer:
    """Lets requests in that show a key with the needed scope, and counts them."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._bearer = HTTPBearer(
            auto_error=False,
            scheme_name="API key",
            description="`Authorization: Bearer maskq_…`, a key that `maskq keys create` printed",
        )

    def needs(self, scope: Scope) -> Callable[..., Awaitable[Caller]]:
        """A dependency of FastAPI: the caller. Raises Problem 401, 403 or 429."""

        async def caller(
            request: Request,
            shown: HTTPAuthorizationCredentials | None = Security(self._bearer),  # noqa: B008
        ) -> Caller:
            credentials = _shown(request, shown)
            answer = await self._client.session.run(api_keys.admit(credentials))
            return Caller(_admitted(request, scope, credentials, answer))

        return caller

    def needs_job(self, scope: Scope) -> Callable[..., Awaitable[AskedJob]]:
        """As `needs`, with the job of the path's `job_id`: both in one round trip to Redis."""

        async def asked(
            request: Request,
            job_id: str,
            shown: HTTPAuthorizationCredentials | None = Security(self._bearer),  # noqa: B008
        ) -> AskedJob:
            credentials = _shown(request, shown)
            answer, record = await self._client.session.ledger.run_both(
                api_keys.admit(credentials), calls.get(job_id)
            )
            caller = Caller(_admitted(request, scope, credentials, answer))
            if record and not caller.sees(record.tenant):
                request.state.reason_for_log = f"job {record.id} is of tenant {record.tenant!r}"
            return AskedJob(caller, job_id, record)

        return asked


def _shown(request: Request, shown: HTTPAuthorizationCredentials | None) -> Credentials:
    """The API key of a request. Raises Problem 401."""
    credentials = Credentials.parse(shown.credentials) if shown else None
    if credentials is None:
        raise _refused(
            HTTPStatus.UNAUTHORIZED,
            "no API key: send `Authorization: Bearer KEY` with a key of `maskq keys create`",
        )
    return credentials


def _admitted(
    request: Request, scope: Scope, credentials: Credentials, answer: api_keys.Admission
) -> ApiKey:
    """The key, if it may be used for this. Raises Problem 401, 403 or 429."""
    request.state.api_key_id = credentials.id
    if answer.key is None:
        raise _refused(
            HTTPStatus.UNAUTHORIZED,
            f"API key {credentials.id} is unknown, revoked, or not written in full",
        )
    if answer.is_expired:
        raise _refused(HTTPStatus.UNAUTHORIZED, f"API key {credentials.id} has expired")
    headers = _rate_headers(answer)
    request.state.headers = headers
    if answer.is_over_rate:
        problem = _refused(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"API key {credentials.id} may make {answer.key.requests_per_minute} requests a "
            f"minute; send this one again in {headers['RateLimit-Reset']} s",
        )
        problem.headers["Retry-After"] = headers["RateLimit-Reset"]
        raise problem
    if not answer.key.allows(scope):
        raise _refused(
            HTTPStatus.FORBIDDEN,
            f"API key {answer.key.id} does not have the scope {scope.value!r}, which this needs",
        )
    return answer.key


def of_tenant(wanted: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Options of a job, for the caller's own tenant. Raises Problem 403 for another one."""
    if caller.tenant is None:
        return wanted
    if wanted.get("tenant", caller.tenant) != caller.tenant:
        raise Problem(
            HTTPStatus.FORBIDDEN,
            FailureCode.ACCESS_DENIED,
            f"API key {caller.key.id} submits jobs of tenant {caller.tenant!r} only",
        )
    return wanted | {"tenant": caller.tenant}


def scoped(key: str, caller: Caller) -> str:
    """An idempotency key as it is stored: tenants choose theirs independently of one another."""
    return key if caller.tenant is None else f"{caller.tenant}/{key}"


def named_batch(name: str, caller: Caller) -> str:
    """The id of a batch: tenants choose the names of runs independently of one another."""
    if caller.tenant is None or is_own_id(name) or name.startswith(f"{caller.tenant}/"):
        return name
    return f"{caller.tenant}/{name}"


def _rate_headers(answer: api_keys.Admission) -> dict[str, str]:
    most = answer.key.requests_per_minute if answer.key else None
    if most is None:
        return {}
    return {
        "RateLimit-Limit": str(most),
        "RateLimit-Remaining": str(max(0, most - answer.used)),
        "RateLimit-Reset": str(max(1, round(answer.resets_in_s))),
    }


def _refused(status: HTTPStatus, detail: str) -> Problem:
    code = FailureCode.ACCESS_DENIED
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        code = FailureCode.RATE_LIMITED
    return Problem(status, code, detail)
