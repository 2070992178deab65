"""Classification of the object store's errors, in one table for client, worker and gateway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from maskq.contract.failures import FailureCode
from maskq.errors import StoreRefused, StoreUnavailable
from maskq.inert import without_secrets

if TYPE_CHECKING:
    from botocore.exceptions import ClientError


class Meaning(StrEnum):
    """How to react to an error of the object store."""

    OUTAGE = "outage"  # of the store or the network: retry later
    CONFLICT = "conflict"  # another request for the same object is in progress: retry at once
    CREDENTIALS = (
        "credentials"  # the caller's credentials or clock: every request fails until they change
    )
    REFUSAL = "refusal"  # of this object or request: a retry would not help


class StoreError(Exception):
    """An error of the object store. The text names the object, and quotes S3's code and message."""

    def __init__(
        self,
        code: FailureCode,
        message: str,
        meaning: Meaning = Meaning.REFUSAL,
        *,
        s3_code: str = "",
    ) -> None:
        super().__init__(without_secrets(message))
        self.code = code
        self.meaning = meaning
        self.s3_code = s3_code  # if the store answered


_OUTAGE: Final = (Meaning.OUTAGE, FailureCode.STORE_UNAVAILABLE)
_CONFLICT: Final = (Meaning.CONFLICT, FailureCode.STORE_UNAVAILABLE)
_CREDENTIALS: Final = (Meaning.CREDENTIALS, FailureCode.ACCESS_DENIED)
_DENIED: Final = (Meaning.REFUSAL, FailureCode.ACCESS_DENIED)
_MISSING: Final = (Meaning.REFUSAL, FailureCode.NOT_FOUND)
_CHANGED: Final = (Meaning.REFUSAL, FailureCode.SOURCE_CHANGED)
_REFUSED: Final = (Meaning.REFUSAL, FailureCode.STORE_REFUSED)

# Codes that are more specific than their HTTP status. Other codes are classified by status.
_BY_CODE: Final[dict[str, tuple[Meaning, FailureCode]]] = {
    **dict.fromkeys(
        (
            "InternalError", "ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite", "Busy",
            "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
            "RequestThrottledException", "TooManyRequests", "TooManyRequestsException",
            "RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException",
            "PriorRequestNotComplete", "RequestTimeout", "RequestTimeoutException",
            "KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException",
            "IncompleteBody", "ClientDisconnected",  # the body was incomplete
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
    200: _OUTAGE,  # S3 reports an interrupted copy as an error in the body of a 200
    304: _CHANGED,  # some stores' answer to a conditional create of an existing object
    404: _MISSING,
    408: _OUTAGE,
    410: _MISSING,
    412: _CHANGED,
    425: _OUTAGE,
    429: _OUTAGE,
    501: _REFUSED,  # the store does not support this request
    505: _REFUSED,
}
# Without a body in the answer, botocore uses the status as the code.
_BARE_DENIED: Final = ("401", "403", "Forbidden", "Unauthorized")

# What to do, if S3's message does not say it.
_ADVICE: Final = {
    "InvalidObjectState": "it is archived; restore it first, or submit a copy",
    "MethodNotAllowed": "the version may be a delete marker",
    "KeyTooLongError": "choose a shorter output_prefix",
    "PermanentRedirect": "its bucket is in another region; set AWS_DEFAULT_REGION to that",
    "AuthorizationHeaderMalformed": "its bucket may be in another region; set AWS_DEFAULT_REGION",
    "IllegalLocationConstraintException": "its bucket is in another region; set AWS_DEFAULT_REGION",
    "301": "its bucket is in another region; set AWS_DEFAULT_REGION to that",
    "RequestTimeTooSkewed": "set this machine's clock",
    "NotImplemented": "the store does not support this kind of request",
}
# boto3 follows these redirects to the bucket's region, so only its own error is final.
REDIRECTS: Final = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)


def meaning_of(status: int, s3_code: str) -> tuple[Meaning, FailureCode]:
    """The meaning of an error answer, and the failure code that callers get."""
    plain = s3_code.removeprefix("KMS.") if s3_code.startswith("KMS.") else s3_code
    if plain in _BY_CODE:
        return _BY_CODE[plain]
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return _OUTAGE
    return _DENIED if status in (401, 403) and s3_code in _BARE_DENIED else _REFUSED


def error_of(place: object, status: int, s3_code: str, words: str) -> StoreError:
    """The StoreError for an error answer; `words`: S3's message."""
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
    """Turn botocore's exceptions into a StoreError that names `place`."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise _answered(error, place) from error
    except (BotoCoreError, RecursionError) as error:
        # botocore asks the bucket for its region, which redirects that request too, and so on.
        if _is_recursion(error):
            raise _redirected(place) from None
        raise _failed(error, place) from error
    except (OSError, ResponseParserError) as error:
        raise _no_answer(error, place) from error


def _is_recursion(error: Exception) -> bool:
    """Whether it is a RecursionError, or one that botocore's HTTP client wrapped."""
    return isinstance(error, RecursionError) or isinstance(
        getattr(error, "kwargs", {}).get("error"), RecursionError
    )


def _redirected(place: object) -> StoreError:
    return StoreError(
        FailureCode.STORE_REFUSED,
        f"the object store redirects {place}, and everything else of its bucket (PermanentRedirect); "
        f"check the scheme of MASKQ_S3_ENDPOINT_URL and the region",
    )


# Requests to find credentials go to other services, whose errors do not concern the object.
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


def _failed(error: Exception, place: object) -> StoreError:
    """The StoreError for an exception without an answer from the store."""
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
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError(
            FailureCode.STORE_UNAVAILABLE,
            f"the object store's certificate is not trusted, so {place} was not asked for: put the "
            f"certificate of the CA that signed it into the file that AWS_CA_BUNDLE names ({error})",
            Meaning.OUTAGE,
        )
    return StoreError(
        FailureCode.STORE_UNAVAILABLE,
        f"the object store did not answer for {place}: {error}; check MASKQ_S3_ENDPOINT_URL",
        Meaning.OUTAGE,
    )


def for_callers(error: StoreError) -> StoreUnavailable:
    """The client's exception: StoreUnavailable if a retry may help, StoreRefused otherwise."""
    passing = error.meaning in (Meaning.OUTAGE, Meaning.CONFLICT)
    raised = StoreUnavailable(str(error)) if passing else StoreRefused(str(error))
    raised.code = error.code
    return raised
