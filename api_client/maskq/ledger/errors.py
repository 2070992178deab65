"""Redis' errors as this package's own, for the person who configured the URL."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from maskq import environment
from maskq.contract import FailureCode
from maskq.errors import EventsLost, InvalidRequest, QueueFull, StoreUnavailable
from maskq.ledger.connections import pools
from maskq.ledger.connections.redis_url import NAME, RedisUrl

_DEFAULT_PLACE = "127.0.0.1:6379/0"
OUTAGE = (redis.ConnectionError, redis.TimeoutError)


@contextmanager
def typed_errors(url: RedisUrl) -> Iterator[None]:
    """Turn Redis' errors into ours: what happened and what to change, without the password."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{error.object!a} cannot be encoded as UTF-8: {error}") from None
    except redis.AuthenticationError as error:
        raise _refused(f"refused the password: {error}; check {NAME}", url) from error
    except redis.MaxConnectionsError as error:
        raise StoreUnavailable(
            f"this client already uses all its connections to Redis at {url.place} (max_connections in "
            f"{NAME}): make fewer calls at a time, or raise the limit"
        ) from error
    except OUTAGE as error:
        if tls := _tls_error(error):
            raise _refused(_tls_words(tls), url) from error
        if isinstance(error, pools.Interrupted):
            raise StoreUnavailable(
                f"Redis at {url.place} cannot serve the call now: {error}"
            ) from error
        raise StoreUnavailable(
            f"Redis at {url.place} cannot be reached: {str(error).rstrip('.')}; {_to_check(url)}"
        ) from error
    except redis.OutOfMemoryError as error:
        raise _full(url) from error
    except redis.ResponseError as error:
        if str(error).startswith(("OOM", "-OOM")) or "maxmemory" in str(error):
            raise _full(url) from error
        if "NOGROUP" in str(error):
            raise EventsLost(
                "the group of event readers was deleted, or Redis has lost it; a reader that joins it "
                "now begins anew; a list of jobs by ended_since shows what has ended"
            ) from error
        if is_missing_right(error):
            user = url.username or "default"
            said = (
                f"does not allow user {user!r} what this needs: {error}; grant it (docs/redis.md)"
            )
            raise _refused(said, url) from error
        raise _refused(f"refused the call: {error}", url) from error


def _to_check(url: RedisUrl) -> str:
    """What to do if nothing answers at a URL."""
    if url.place == _DEFAULT_PLACE and not environment.value(NAME):
        return f"{NAME} is not set, and this is its default: set it, or start Redis there"
    runs = "it runs" if url.tls is None else "it runs, with TLS"
    return f"check {NAME if environment.value(NAME) else 'redis_url'} and that {runs}"


def _full(url: RedisUrl) -> QueueFull:
    return QueueFull(f"Redis at {url.place} is at its memory limit; submit again later")


def _refused(what: str, url: RedisUrl) -> StoreUnavailable:
    """An error that lasts until somebody changes the settings or the rights."""
    raised = StoreUnavailable(f"Redis at {url.place} {what}")
    raised.code = FailureCode.ACCESS_DENIED
    return raised


def is_missing_right(error: redis.ResponseError) -> bool:
    """Whether an ACL forbids the command, called directly or by a script."""
    return (
        isinstance(error, redis.exceptions.NoPermissionError)
        or "NOPERM" in str(error)
        or "ACL failure in script" in str(error)
        or "user executing the script can't" in str(error)  # Redis 7.0
    )


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The TLS error behind an error, if the handshake failed."""
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
