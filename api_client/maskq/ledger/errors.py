"""Redis' errors as this package's own, for the person who configured the URL."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from maskq.contract import FailureCode
from maskq.errors import InvalidRequest, QueueFull, StoreUnavailable
from maskq.ledger.connections import pools
from maskq.ledger.connections.redis_url import NAME, RedisUrl

OUTAGE = (redis.ConnectionError, redis.TimeoutError)


@contextmanager
def typed_errors(url: RedisUrl) -> Iterator[None]:
    """What the person who configured the URL needs to read, without its password."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{error.object!a} is not text that can be sent: {error}") from None
    except redis.AuthenticationError as error:
        raise _refused(f"refused the password: {error}; check {NAME}", url) from error
    except redis.MaxConnectionsError as error:
        raise StoreUnavailable(
            f"this client uses as many connections to Redis at {url.place} as it may (max_connections "
            f"in {NAME}): make fewer calls at a time, or raise it"
        ) from error
    except OUTAGE as error:
        if tls := _tls_error(error):
            raise _refused(_tls_words(tls), url) from error
        if isinstance(error, pools.Interrupted):
            raise StoreUnavailable(f"Redis at {url.place} cannot do it now: {error}") from error
        runs = "it runs" if url.tls is None else "it runs, with TLS"
        raise StoreUnavailable(
            f"Redis at {url.place} cannot be reached: {error}; check {NAME} and that {runs}"
        ) from error
    except redis.OutOfMemoryError as error:
        raise _full(url) from error
    except redis.ResponseError as error:
        if str(error).startswith(("OOM", "-OOM")) or "maxmemory" in str(error):
            raise _full(url) from error
        if is_missing_right(error):
            user = url.username or "default"
            said = (
                f"does not allow user {user!r} what this needs: {error}; grant it (docs/redis.md)"
            )
            raise _refused(said, url) from error
        raise _refused(f"refused the call: {error}", url) from error


def _full(url: RedisUrl) -> QueueFull:
    return QueueFull(f"Redis at {url.place} is at its memory limit; submit again later")


def _refused(what: str, url: RedisUrl) -> StoreUnavailable:
    """No outage: it stays so until somebody changes the settings or the rights."""
    raised = StoreUnavailable(f"Redis at {url.place} {what}")
    raised.code = FailureCode.ACCESS_DENIED
    return raised


def is_missing_right(error: redis.ResponseError) -> bool:
    """Whether the ACL forbids it, to the caller or within a script."""
    return (
        isinstance(error, redis.exceptions.NoPermissionError)
        or "NOPERM" in str(error)
        or "ACL failure in script" in str(error)
        or "user executing the script can't" in str(error)  # Redis 7.0
    )


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The reason, if TLS could not be agreed on."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            lost = isinstance(seen, ssl.SSLEOFError | ssl.SSLZeroReturnError)
            return None if lost else seen
        seen = seen.__cause__ or seen.__context__
    return None


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted here: {error.verify_message}; name who signs "
            f"it in MASKQ_REDIS_CA_FILE, and the host in {NAME} as the certificate has it"
        )
    return f"and this process do not agree on TLS: {error.reason or error}; check {NAME}"
