"""Rules of the bucket that work against retention: versioning and lifecycle, where they can be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from maskq import s3
from maskq.cli.doctor.check import Finding, ok, unknown, warning
from maskq.contract.locations import S3Uri

_MAY_NOT: Final = "the credentials may not read it, which no role needs"


def bucket_rules(client: Any, home: S3Uri) -> Iterator[Finding]:
    """Hints on versioning and lifecycle rules. Raises nothing."""
    yield _versioning(client, home)
    yield _lifecycle(client, home)


def _versioning(client: Any, home: S3Uri) -> Finding:
    try:
        with s3.typed_errors(home):
            answer = client.get_bucket_versioning(Bucket=home.bucket)
    except s3.StoreError:
        return unknown("versioning", _MAY_NOT)
    if answer.get("Status") != "Enabled":
        return ok("versioning", "off: what is deleted is gone")
    return warning(
        "versioning",
        "on: outputs that maskq deletes stay as older versions, and cost",
        "add a lifecycle rule with NoncurrentVersionExpiration, if retention matters",
    )


def _lifecycle(client: Any, home: S3Uri) -> Finding:
    try:
        with s3.typed_errors(home):
            answer = client.get_bucket_lifecycle_configuration(Bucket=home.bucket)
    except s3.StoreError as error:
        if error.s3_code == "NoSuchLifecycleConfiguration":
            return ok("lifecycle", "no rules: maskq removes what it keeps for a time")
        return unknown("lifecycle", _MAY_NOT)
    expiring = [rule for rule in answer.get("Rules", ()) if _expires(rule, home)]
    if not expiring:
        return ok("lifecycle", "no rule removes objects of maskq")
    days = min(int(rule["Expiration"].get("Days", 0)) for rule in expiring)
    return warning(
        "lifecycle",
        f"a rule removes objects below {home} after {days} days, also those of jobs that are kept",
        "use MASKQ_OUTPUT_RETENTION_S instead, or a rule that is longer than MASKQ_RETENTION_S",
    )


def _expires(rule: dict[str, Any], home: S3Uri) -> bool:
    prefix = rule.get("Prefix") or rule.get("Filter", {}).get("Prefix", "")
    is_ours = f"{home.key}/".startswith(prefix) or prefix.startswith(home.key)
    return rule.get("Status") == "Enabled" and "Expiration" in rule and is_ours
