"""The object store by boto3: how client and worker connect, and what its errors mean."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from maskq.contract.failures import FailureCode
from maskq.contract.places import S3Place
from maskq.errors import InvalidRequest, StoreRefused, StoreUnavailable
from maskq.per_process import no_fork

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

T = TypeVar("T")
Addressing = Literal["path", "virtual", "auto"]

_RENEW_EVERY_S = 10.0  # new credentials are looked for at most this often


# --- what an error means ------------------------------------------------------------------------------


class Meaning(StrEnum):
    """What is to be done about an error of the store."""

    OUTAGE = "outage"  # the store or the way to it: try again later
    CONFLICT = "conflict"  # another request for the same object is in progress: try again at once
    CREDENTIALS = "credentials"  # the caller's own, or its clock: nothing works until they change
    REFUSAL = "refusal"  # this object or request: the answer would be the same again


class StoreError(Exception):
    """An error of the object store. The text names the place, and S3's own code and words."""

    def __init__(
        self,
        code: FailureCode,
        message: str,
        meaning: Meaning = Meaning.REFUSAL,
        *,
        s3_code: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.meaning = meaning
        self.s3_code = s3_code  # where the store answered


_OUTAGE: Final = (Meaning.OUTAGE, FailureCode.STORE_UNAVAILABLE)
_CONFLICT: Final = (Meaning.CONFLICT, FailureCode.STORE_UNAVAILABLE)
_CREDENTIALS: Final = (Meaning.CREDENTIALS, FailureCode.ACCESS_DENIED)
_DENIED: Final = (Meaning.REFUSAL, FailureCode.ACCESS_DENIED)
_MISSING: Final = (Meaning.REFUSAL, FailureCode.NOT_FOUND)
_CHANGED: Final = (Meaning.REFUSAL, FailureCode.SOURCE_CHANGED)
_REFUSED: Final = (Meaning.REFUSAL, FailureCode.STORE_REFUSED)

# Codes that say more than their HTTP status, or come with several. All others go by the status.
_BY_CODE: Final[dict[str, tuple[Meaning, FailureCode]]] = {
    **dict.fromkeys(
        (
            "InternalError", "ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite", "Busy",
            "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
            "RequestThrottledException", "TooManyRequests", "TooManyRequestsException",
            "RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException",
            "PriorRequestNotComplete", "RequestTimeout", "RequestTimeoutException",
            "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException",
            "IncompleteBody", "ClientDisconnected",  # the body did not arrive whole
        ),
        _OUTAGE,
    ),
    **dict.fromkeys(("ConditionalRequestConflict", "OperationAborted"), _CONFLICT),
    **dict.fromkeys(
        (
            "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken",
            "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId",
            "SignatureDoesNotMatch", "InvalidSignatureException", "RequestTimeTooSkewed",
            "RequestExpired", "RequestInTheFuture", "MissingAuthenticationToken", "AuthFailure",
        ),
        _CREDENTIALS,
    ),
    **dict.fromkeys(("AccessDenied", "AccessDeniedException", "AllAccessDisabled"), _DENIED),
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"), _MISSING),
    "PreconditionFailed": _CHANGED,
}  # fmt: skip

_BY_STATUS: Final[dict[int, tuple[Meaning, FailureCode]]] = {
    200: _OUTAGE,  # an error in the body of a success: S3 says so of a copy that broke off
    304: _CHANGED,  # some stores' answer to a create where there is an object
    404: _MISSING,
    408: _OUTAGE,
    410: _MISSING,
    412: _CHANGED,
    425: _OUTAGE,
    429: _OUTAGE,
    501: _REFUSED,  # the store does not know this request, now or later
    505: _REFUSED,
}
# Where the answer has no body, botocore gives the status for the code.
_BARE_DENIED: Final = ("401", "403", "Forbidden", "Unauthorized")

# What to do, where S3's own words do not say it.
_ADVICE: Final = {
    "InvalidObjectState": "it is archived; restore it first, or submit a copy",
    "MethodNotAllowed": "the version named is perhaps a delete marker",
    "KeyTooLongError": "choose a shorter output_prefix",
    "PermanentRedirect": "its bucket is in another region; set AWS_DEFAULT_REGION to that",
    "AuthorizationHeaderMalformed": "its bucket is perhaps in another region; set AWS_DEFAULT_REGION",
    "IllegalLocationConstraintException": "its bucket is in another region; set AWS_DEFAULT_REGION",
    "301": "its bucket is in another region; set AWS_DEFAULT_REGION to that",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NotImplemented": "the store does not know this kind of request",
}
# boto3 follows these to the bucket's own region, so only its word about them is final.
REDIRECTS: Final = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)


def meaning_of(status: int, s3_code: str) -> tuple[Meaning, FailureCode]:
    """What an error answer of the store means, and under which code callers hear of it."""
    plain = s3_code.removeprefix("KMS.") if s3_code.startswith("KMS.") else s3_code
    if plain in _BY_CODE:
        return _BY_CODE[plain]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return _OUTAGE
    return _DENIED if status in (401, 403) and s3_code in _BARE_DENIED else _REFUSED


def error_of(place: object, status: int, s3_code: str, words: str) -> StoreError:
    """An error answer of the store, with its own code and words."""
    meaning, code = meaning_of(status, s3_code)
    said = f"{s3_code}: {words}" if words else s3_code
    if meaning is Meaning.OUTAGE or meaning is Meaning.CONFLICT:
        text = f"the object store failed for {place} ({said})"
    elif meaning is Meaning.CREDENTIALS:
        text = f"the object store refuses the credentials, for {place} ({said})"
    elif code is FailureCode.ACCESS_DENIED:
        text = f"the object store refuses {place} ({said}); check the credentials and their policy"
    elif s3_code == "NoSuchBucket":
        text = f"there is no bucket of this name: {place} ({said})"
    elif code is FailureCode.NOT_FOUND:
        text = f"there is no object at {place} ({said})"
    elif code is FailureCode.SOURCE_CHANGED:
        text = f"the object at {place} was changed meanwhile ({said})"
    else:
        text = f"the object store refuses {place} ({said})"
    advice = _ADVICE.get(s3_code)
    return StoreError(code, f"{text}; {advice}" if advice else text, meaning, s3_code=s3_code)


@contextmanager
def typed_errors(place: object) -> Iterator[None]:
    """Turn what botocore raises into a StoreError that names `place`."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _answered(error, place) from error
    except BotoCoreError as error:
        raise _failed(error, place) from error
    except (OSError, ResponseParserError) as error:
        raise _no_answer(error, place) from error
    except (
        RecursionError
    ):  # botocore asks the bucket where the bucket is, which redirects it as well
        raise StoreError(
            FailureCode.STORE_REFUSED,
            f"the object store redirects {place}, and everything else of its bucket "
            f"(PermanentRedirect); check the scheme of MASKQ_S3_ENDPOINT_URL and the region",
        ) from None


# The credential chain asks other services, whose word is not about the object.
_OF_THE_CHAIN: Final = frozenset(
    {
        "AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "CreateToken",
        "GetRoleCredentials", "GetSessionToken", "GetFederationToken",
    }
)  # fmt: skip


def _answered(error: ClientError, place: object) -> StoreError:
    said = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    found = error_of(place, status, str(said.get("Code", status)), str(said.get("Message", "")))
    if error.operation_name in _OF_THE_CHAIN and found.meaning is Meaning.REFUSAL:
        return StoreError(
            FailureCode.ACCESS_DENIED,
            f"no credentials for {place}: {error}",
            Meaning.CREDENTIALS,
        )
    return found


def _failed(error: BotoCoreError, place: object) -> StoreError:
    """What botocore met before or without an answer of the store."""
    from botocore import exceptions

    if isinstance(error, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return StoreError(
            FailureCode.ACCESS_DENIED,
            f"no credentials for {place}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a role",
            Meaning.CREDENTIALS,
        )
    chain = (
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
        exceptions.MetadataRetrievalError,
        exceptions.RefreshWithMFAUnsupportedError,
    )
    if isinstance(error, chain):
        text = f"no credentials for {place}: {error}"
        return StoreError(FailureCode.ACCESS_DENIED, text, Meaning.CREDENTIALS)
    unsendable = (
        exceptions.ParamValidationError,
        exceptions.ValidationError,
        exceptions.EndpointProviderError,
    )
    if isinstance(error, unsendable):
        text = f"S3 cannot be asked for {place}: {' '.join(str(error).split())}"
        return StoreError(FailureCode.STORE_REFUSED, text)
    return _no_answer(error, place)


def _no_answer(error: Exception, place: object) -> StoreError:
    return StoreError(
        FailureCode.STORE_UNAVAILABLE,
        f"the object store did not answer for {place}: {error}; check MASKQ_S3_ENDPOINT_URL",
        Meaning.OUTAGE,
    )


def for_callers(error: StoreError) -> StoreUnavailable:
    """What the client raises: StoreRefused unless it may pass by itself."""
    passing = error.meaning in (Meaning.OUTAGE, Meaning.CONFLICT)
    raised = StoreUnavailable(str(error)) if passing else StoreRefused(str(error))
    raised.code = error.code
    return raised


# --- how to connect -----------------------------------------------------------------------------------


def connect(
    endpoint_url: str | None,
    *,
    addressing: Addressing = "path",
    connections: int = 16,
    read_timeout_s: float = 20.0,
    attempts: int = 3,
) -> Any:
    """A boto3 S3 client. One a process, shared by its threads, made after any fork.

    addressing: where a URL names the bucket: in its path, in its host name, or as botocore chooses.
    Raises InvalidRequest for an endpoint that is not a URL, or a mistake in AWS's own configuration.
    """
    # A child that is forked during an import finds the module locked for ever; a client imports more.
    with no_fork():
        return _connected(endpoint_url, addressing, connections, read_timeout_s, attempts)


def _connected(
    endpoint_url: str | None,
    addressing: Addressing,
    connections: int,
    read_timeout_s: float,
    attempts: int,
) -> Any:
    import boto3  # half of the import time of everything else together: only when it is needed
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    try:
        # A session of its own: the default one keeps the first credentials it saw, and is not
        # thread-safe.
        return boto3.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            config=Config(
                max_pool_connections=connections,
                connect_timeout=3,
                read_timeout=read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": addressing},
                tcp_keepalive=True,
            ),
        )
    except ValueError as error:
        raise InvalidRequest(
            f"MASKQ_S3_ENDPOINT_URL is no URL of an object store, http://HOST:PORT: {error}"
        ) from None
    except BotoCoreError as error:  # a profile that is not there, a file that cannot be parsed
        raise InvalidRequest(f"the AWS configuration cannot be used: {error}") from None


class Connection:
    """A client that is made at its first use, and made anew when its credentials are refused.

    A new session reads files and roles again, where credentials may have been rotated.
    Threads share it.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None
        self._renewed = float("-inf")
        self.made_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._remake()
            return self._client

    def run(self, work: Callable[[Any], T]) -> T:
        """`work(client)`, once more with new credentials if they are refused. Raises StoreError."""
        client = self.client
        try:
            return work(client)
        except StoreError as error:
            if error.meaning is not Meaning.CREDENTIALS or not self._renew(client):
                raise
        return work(self.client)

    def renew(self) -> None:
        """Look for new credentials now. Raises InvalidRequest."""
        with self._lock:
            self._remake()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()

    def _remake(self) -> None:
        self._client = self._make()
        self.made_at = time.monotonic()

    def _renew(self, refused: Any) -> bool:
        """Whether there is another client than the one that was refused."""
        with self._lock:
            if self._client is not refused:
                return True
            if time.monotonic() < self._renewed + _RENEW_EVERY_S:
                return False
            self._renewed = time.monotonic()
            try:
                self._remake()
            except InvalidRequest:
                return False
            return True


# --- many objects -------------------------------------------------------------------------------------


def list_under(client: Any, place: S3Place) -> list[S3Place]:
    """Every object whose key begins with the place and a slash."""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=place.bucket, Prefix=f"{place.key}/"
    )
    return [S3Place(place.bucket, e["Key"]) for page in pages for e in page.get("Contents", ())]


def delete_under(client: Any, place: S3Place) -> None:
    """Delete every object whose key begins with the place and a slash, one by one: a bulk deletion
    needs a checksum that not every S3 server knows."""
    for found in list_under(client, place):
        client.delete_object(Bucket=found.bucket, Key=found.key)
