"""What an error of the store means is one table: by its code, else by its HTTP status."""

from __future__ import annotations

import pytest
from botocore import exceptions
from botocore.parsers import ResponseParserError

from maskq import FailureCode, StoreRefused, StoreUnavailable
from maskq.s3.errors import Meaning, StoreError, error_of, for_callers, meaning_of, typed_errors

OUTAGES = [
    (500, "InternalError"), (502, "502"), (503, "ServiceUnavailable"), (503, "SlowDown"),
    (504, "GatewayTimeout"), (429, "TooManyRequests"), (400, "RequestTimeout"), (408, "408"),
    (400, "Throttling"), (400, "RequestLimitExceeded"), (400, "KMS.ThrottlingException"),
    (500, "KMS.KMSInternalException"), (507, "XMinioStorageFull"), (599, "never heard of"),
    (400, "IncompleteBody"), (200, "SomeErrorAfterTheHeaders"),
]  # fmt: skip
CREDENTIALS = [
    (400, "ExpiredToken"), (400, "ExpiredTokenException"), (400, "TokenRefreshRequired"),
    (400, "InvalidToken"), (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"),
    (403, "RequestTimeTooSkewed"), (400, "RequestExpired"),
]  # fmt: skip
REFUSALS = [
    (403, "InvalidObjectState", FailureCode.STORE_REFUSED),
    (400, "KMS.DisabledException", FailureCode.STORE_REFUSED),
    (400, "KMS.KMSInvalidStateException", FailureCode.STORE_REFUSED),
    (405, "MethodNotAllowed", FailureCode.STORE_REFUSED),
    (400, "KeyTooLongError", FailureCode.STORE_REFUSED),
    (400, "EntityTooLarge", FailureCode.STORE_REFUSED),
    (416, "InvalidRange", FailureCode.STORE_REFUSED),
    (400, "InvalidBucketName", FailureCode.STORE_REFUSED),
    (301, "PermanentRedirect", FailureCode.STORE_REFUSED),
    (307, "TemporaryRedirect", FailureCode.STORE_REFUSED),
    (400, "AuthorizationHeaderMalformed", FailureCode.STORE_REFUSED),
    (403, "QuotaExceeded", FailureCode.STORE_REFUSED),
    (501, "NotImplemented", FailureCode.STORE_REFUSED),
    (418, "never heard of", FailureCode.STORE_REFUSED),
    (403, "AccessDenied", FailureCode.ACCESS_DENIED),
    (403, "403", FailureCode.ACCESS_DENIED),
    (404, "NoSuchKey", FailureCode.NOT_FOUND),
    (404, "NoSuchBucket", FailureCode.NOT_FOUND),
    (404, "404", FailureCode.NOT_FOUND),
    (404, "never heard of", FailureCode.NOT_FOUND),
    (412, "PreconditionFailed", FailureCode.SOURCE_CHANGED),
    (304, "304", FailureCode.SOURCE_CHANGED),
]


@pytest.mark.parametrize(("status", "code"), OUTAGES)
def test_what_may_pass_by_itself_is_an_outage(status: int, code: str) -> None:
    assert meaning_of(status, code) == (Meaning.OUTAGE, FailureCode.STORE_UNAVAILABLE)


@pytest.mark.parametrize(("status", "code"), CREDENTIALS)
def test_what_is_about_the_worker_s_credentials_is_told_apart(status: int, code: str) -> None:
    assert meaning_of(status, code) == (Meaning.CREDENTIALS, FailureCode.ACCESS_DENIED)


@pytest.mark.parametrize(("status", "code", "told"), REFUSALS)
def test_any_other_4xx_is_about_one_request(status: int, code: str, told: FailureCode) -> None:
    assert meaning_of(status, code) == (Meaning.REFUSAL, told)


@pytest.mark.parametrize("code", ["OperationAborted", "ConditionalRequestConflict"])
def test_a_conflict_is_neither_an_answer_nor_an_outage(code: str) -> None:
    assert meaning_of(409, code)[0] is Meaning.CONFLICT


def test_a_refusal_repeats_the_store_s_code_and_words_and_says_what_to_do() -> None:
    error = error_of("s3://b/k", 403, "InvalidObjectState", "The operation is not valid")
    assert "s3://b/k" in str(error)
    assert "InvalidObjectState: The operation is not valid" in str(error)
    assert "restore it" in str(error)


@pytest.mark.parametrize(
    ("raised", "meaning"),
    [
        (exceptions.EndpointConnectionError(endpoint_url="x"), Meaning.OUTAGE),
        (exceptions.ConnectTimeoutError(endpoint_url="x"), Meaning.OUTAGE),
        (exceptions.ReadTimeoutError(endpoint_url="x"), Meaning.OUTAGE),
        (exceptions.ConnectionClosedError(endpoint_url="x"), Meaning.OUTAGE),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), Meaning.OUTAGE),
        (exceptions.ResponseStreamingError(error="x"), Meaning.OUTAGE),
        (exceptions.SSLError(endpoint_url="x", error="x"), Meaning.OUTAGE),
        (ResponseParserError("<html>"), Meaning.OUTAGE),
        (ConnectionResetError("reset"), Meaning.OUTAGE),
        (exceptions.NoCredentialsError(), Meaning.CREDENTIALS),
        (exceptions.PartialCredentialsError(provider="x", cred_var="y"), Meaning.CREDENTIALS),
        (exceptions.CredentialRetrievalError(provider="x", error_msg="y"), Meaning.CREDENTIALS),
        (exceptions.TokenRetrievalError(provider="x", error_msg="y"), Meaning.CREDENTIALS),
        (exceptions.ParamValidationError(report="Invalid bucket name"), Meaning.REFUSAL),
        (
            exceptions.ClientError(
                {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}},
                "AssumeRoleWithWebIdentity",
            ),
            Meaning.CREDENTIALS,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_botocore_raises_without_an_answer_of_the_store(
    raised: Exception, meaning: Meaning
) -> None:
    with pytest.raises(StoreError) as caught, typed_errors("s3://b/k"):
        raise raised
    assert caught.value.meaning is meaning


def test_callers_hear_of_an_outage_and_of_a_refusal_as_two_errors() -> None:
    outage = for_callers(error_of("p", 503, "SlowDown", ""))
    assert type(outage) is StoreUnavailable
    assert outage.code is FailureCode.STORE_UNAVAILABLE
    refusal = for_callers(error_of("p", 400, "EntityTooLarge", ""))
    assert type(refusal) is StoreRefused
    assert refusal.code is FailureCode.STORE_REFUSED
