"""An SQS queue by boto3: its messages, and the meaning of its errors."""

from __future__ import annotations

import re
from typing import Any

from maskq.contract.failures import FailureCode
from maskq.errors import InvalidRequest, MaskqError

_WAIT_S = 5  # of a receive; a stop may take as long
_TOTAL_S = 30.0  # of any request
_AT_ONCE = 10  # SQS' own limit
_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/")
_UNKNOWN = ("NonExistentQueue", "QueueDoesNotExist", "InvalidAddress")
_DENIED = (
    "401", "403", "AccessDenied", "AccessDeniedException", "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException", "InvalidAccessKeyId", "InvalidSecurity", "OptInRequired",
    "IncompleteSignature", "MissingAuthenticationToken", "KmsAccessDenied", "KMS.AccessDeniedException",
)  # fmt: skip


class Unreachable(MaskqError, ConnectionError):
    """The queue does not answer, or answers with an error that may pass."""

    code = FailureCode.STORE_UNAVAILABLE


class Queue:
    """One queue, read by one thread."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url
        self._answered = False

    def receive(self) -> list[dict[str, Any]]:
        """Up to ten messages; waits some seconds for the first.

        Raises Unreachable. If the queue refuses and never answered before, raises InvalidRequest: a
        setting is wrong. A later refusal may pass (keys that are rotated, a policy that is changed).
        """
        answer = self._ask("receive_message", MaxNumberOfMessages=_AT_ONCE, WaitTimeSeconds=_WAIT_S)
        self._answered = True
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def delete(self, message: dict[str, Any]) -> None:
        """Raises Unreachable; the message then comes again, and starts no second job."""
        self._ask("delete_message", ReceiptHandle=message["ReceiptHandle"])

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            answer: dict[str, Any] = getattr(self._client, operation)(
                QueueUrl=self._url, **arguments
            )
        except ClientError as error:
            raise self._refused(
                str(error.response.get("Error", {}).get("Code", "")), error
            ) from None
        except NoCredentialsError:
            raise self._mistake(
                f"there are no credentials for {self._url}; set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, or a role"
            ) from None
        except (BotoCoreError, OSError) as error:
            raise Unreachable(f"the queue {self._url} cannot be reached: {error}") from None
        return answer

    def _refused(self, code: str, error: Exception) -> MaskqError:
        plain = code.rpartition(".")[2]
        if plain in _UNKNOWN:
            return self._mistake(f"there is no queue {self._url}; check MASKQ_TRIGGER_QUEUE_URL")
        if code in _DENIED or plain in _DENIED:
            return self._mistake(
                f"the queue {self._url} refuses us ({code}); its reader needs sqs:ReceiveMessage and "
                f"sqs:DeleteMessage: check the credentials and their policy"
            )
        return Unreachable(f"the queue {self._url} failed ({code}): {error}")

    def _mistake(self, said: str) -> MaskqError:
        return Unreachable(said) if self._answered else InvalidRequest(said)


def connect(url: str, endpoint_url: str | None) -> Queue:
    """The queue of this URL. Raises InvalidRequest if no region is known."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from maskq.safe_http.boto3_deadline import limit_requests

    for name, value in (("MASKQ_TRIGGER_QUEUE_URL", url), ("MASKQ_SQS_ENDPOINT_URL", endpoint_url)):
        if value and "@" in value:  # botocore's errors repeat the URL
            raise InvalidRequest(
                f"{name} holds a user name or password; the credentials come by the AWS chain"
            )
    named = _REGION.match(url)
    config = Config(
        connect_timeout=3,
        read_timeout=_WAIT_S + 15,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    try:
        client = boto3.Session().client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name=named[1] if named else None,  # None: as the environment says
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise InvalidRequest(
            f"no connection to {url} can be made: {error}; check AWS_REGION, MASKQ_SQS_ENDPOINT_URL"
        ) from None
    limit_requests(client, total_s=_TOTAL_S)
    return Queue(client, url)
