"""An S3 server as a child process: the emulator ministack. For one machine and for tests, not for
production."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from maskq_standalone.children.child import ChildError, explain, never
from maskq_standalone.ports import LOOPBACK
from maskq_standalone.servers import upload_queue
from maskq_standalone.servers.server import Server

REGION = "us-east-1"
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV")


class S3Server(Server):
    """One S3 endpoint with one bucket. Objects are on disk before a PUT is answered: they survive
    SIGKILL; settings of the bucket itself (lifecycle, CORS) are written at a clean stop."""

    name = "s3"

    def __init__(
        self,
        directory: Path,
        *,
        access_key_id: str,
        secret_access_key: str,
        bucket: str = "maskq",
        watched: Collection[str] = (),
        log: Path | None = None,
        port: int | None = None,
        keep_open: Sequence[int] = (),
    ) -> None:
        """directory: holds the data; made if missing. watched: buckets whose new objects
        are announced in a queue; made if missing. The rest as in Server.
        """
        self.directory = directory.absolute()
        self.access_key_id = access_key_id
        self.secret_access_key = secret_access_key
        self.bucket = bucket
        self._watched = sorted(watched)
        self._client: tuple[int, Any] = (0, None)  # with the port it was made for
        super().__init__(log=log or self.directory / "s3.log", port=port, keep_open=keep_open)

    @property
    def endpoint_url(self) -> str:
        return f"http://{self.address}"

    @property
    def environment(self) -> dict[str, str]:
        """The credentials, as boto3 reads them from the environment."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
        }

    def describe(self) -> str:
        return f"bucket {self.bucket}"

    def command(self) -> Sequence[str]:
        return [sys.executable, "-m", "maskq_standalone.servers.s3_process"]

    def child_environment(self) -> Mapping[str, str]:
        """Few of our own variables: the emulator reads some hundred."""
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return passed_on | {
            "AUTH": "true",
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "MINISTACK_REGION": REGION,
            "SERVICES": "s3,sqs",
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.directory / "objects"),
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self.directory / "state"),
            "TMPDIR": str(self.directory / "tmp"),  # where it puts a pid file
            "BIND_HOST": LOOPBACK,
            "MINISTACK_HOST": LOOPBACK,
            "GATEWAY_PORT": str(self.port),
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            # At its start it removes containers that other emulators left on a Docker daemon.
            "DOCKER_HOST": f"unix://{self.directory}/no-docker.sock",
            "LOG_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
        }

    def spawn(self) -> None:
        if importlib.util.find_spec("ministack") is None:
            raise ChildError("s3 could not start: `pip install 'maskq[standalone]'`")
        try:
            for name in ("objects", "state", "tmp"):
                (self.directory / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ChildError(f"s3 could not start: {explain(error)}") from None
        super().spawn()

    def wait_ready(self, cancelled: Callable[[], bool] = never) -> None:
        """Wait until the bucket is there and the watched buckets send their notifications."""
        self._own_client()  # some 0.3 s of imports and parsing, while the server starts
        super().wait_ready(cancelled)
        if self._watched:
            self.connect_uploads()

    def connect_uploads(self) -> str:
        """Have the watched buckets tell a queue of new objects. Returns the queue's URL.

        Raises ChildError."""
        from botocore.exceptions import BotoCoreError, ClientError

        s3 = self.client()
        try:
            for bucket in self._watched:
                if bucket != self.bucket:
                    s3.create_bucket(Bucket=bucket)  # also if it is there: the same answer
            return upload_queue.connect(s3, self.client("sqs"), self._watched)
        except (BotoCoreError, ClientError) as error:
            raise ChildError(f"uploads cannot be watched: {error}") from None

    def is_ready(self) -> bool:
        """Whether the bucket is there; makes it if missing. Raises ChildError if it cannot."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._own_client()
        try:
            client.head_bucket(Bucket=self.bucket)
        except BotoCoreError:
            return False
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NOT_FOUND:
                raise ChildError(f"s3 could not start: {error}") from None
            self._make_bucket(client)
        return True

    def _make_bucket(self, client: Any) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        try:
            client.create_bucket(Bucket=self.bucket)
        except ParamValidationError:
            raise ChildError(
                f"s3 could not start: no bucket can be named {self.bucket!r}"
            ) from None
        except (BotoCoreError, ClientError) as error:
            raise ChildError(f"s3 could not start: bucket {self.bucket}: {error}") from None

    def _own_client(self) -> Any:
        if self._client[0] != self.port:
            self._client = (self.port, self.client())
        return self._client[1]

    def client(self, service: str = "s3") -> Any:
        """A boto3 client with this server's credentials, whatever the environment says.

        service: s3, or sqs for the queues that take the bucket's notifications.
        """
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=1,
            read_timeout=5,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            proxies={},  # never through a proxy: it is on this machine
        )
        return boto3.client(
            service,
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=REGION,
            config=config,
        )
