"""A real worker and a client, whose object store has a certificate that a private CA signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from support.tls import Authority, TlsProxy

from maskq import Client
from maskq_standalone.children.child import ChildError
from maskq_standalone.stack import Stack


def test_a_job_runs_over_tls_and_a_bundle_that_is_missing_ends_the_start_with_78(
    tmp_path: Path, smallest_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    with (
        Stack(workers=0, pinned=True, model=str(smallest_model)) as stack,
        TlsProxy(stack.s3.port, authority.certificate("localhost")) as front,
    ):
        trusted = {
            "MASKQ_S3_ENDPOINT_URL": f"https://localhost:{front.port}",
            "AWS_CA_BUNDLE": str(authority.file),
        }
        for name, value in (stack.environment | trusted).items():
            monkeypatch.setenv(name, value)
        worker = stack.start_worker(trusted)
        with Client.from_env(transport="direct") as client:
            job = client.submit(Image.new("RGB", (64, 48), "teal"))
            assert job.wait(timeout=60).mask().size == (64, 48)
        assert front.seen.connections >= 2
        assert front.seen.in_clear == []
        log = (stack.directory / "logs" / f"{worker.name}.log").read_text()
        assert "obstore does not reach" not in log
        with pytest.raises(ChildError, match=r"code 78.*AWS_CA_BUNDLE: '/nowhere'"):
            stack.start_worker(trusted | {"AWS_CA_BUNDLE": "/nowhere"})
