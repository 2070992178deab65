"""Where jobs may read and write: by lists, by tenants, and whatever a store makes of odd keys."""

from __future__ import annotations

import pytest

from maskq import InvalidRequest
from maskq.contract.ids import new_id
from maskq.contract.locations import S3Uri
from maskq.contract.locations.allowed import AllowedLocations, Location
from maskq.contract.storage_layout import StorageLayout
from maskq_worker.settings import WorkerSettings

LAYOUT = StorageLayout(S3Uri("maskq", "maskq"))
# Fixed: parallel processes must collect the same tests.
JOB = "01a206e7-a91c-7f60-938b-7a3d65bbbf53"
TOKEN = "vBAek5XhHv_EKwH0"


def reads(location: str, uri: str, tenant: str | None = None) -> bool:
    allowed = AllowedLocations(LAYOUT, inputs=[Location.parse(location)])
    return not allowed.refuse_read(S3Uri.parse(uri), LAYOUT.job(JOB, tenant=tenant))


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("s3://photos", "s3://photos/a.jpg"),
        ("s3://photos/", "s3://photos/a/b.jpg"),
        ("s3://photos/a", "s3://photos/a/b.jpg"),
        ("s3://photos/a/", "s3://photos/a/b.jpg"),
        ("s3://photos/a", "s3://photos/a"),
        ("s3://photos/a", "s3://photos/a//b.jpg"),
        ("s3://photos/a", "s3://photos/a/100%.jpg"),
        ("s3://photos/a", "s3://photos/a/x..y.jpg"),
        ("s3://photos/a", "s3://photos/a/x/../y.jpg"),
        ("s3://photos/{tenant}", "s3://photos/acme/1.jpg"),
        ("s3://photos/of-{tenant}/in", "s3://photos/of-acme/in/1.jpg"),
        ("s3://{tenant}-photos", "s3://acme-photos/1.jpg"),
    ],
)
def test_what_lies_in_a_location_is_allowed(location: str, uri: str) -> None:
    assert reads(location, uri, "acme")


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("s3://photos", "s3://photos2/a.jpg"),
        ("s3://photos/a", "s3://photos/ab/1.jpg"),
        ("s3://photos/a", "s3://photos/1.jpg"),
        ("s3://photos/a", "s3://photos//a/1.jpg?"[:-1].replace("//a", "//b")),
        ("s3://photos/a", "s3://photos/a/../b/1.jpg"),
        ("s3://photos/a", "s3://photos/a/x/../../b/1.jpg"),
        ("s3://photos/a", "s3://photos/a/%2e%2e/b/1.jpg"),
        ("s3://photos/a", "s3://photos/a/%252e%252e/b/1.jpg"),
        ("s3://photos/a", "s3://photos/a%2F..%2Fb/1.jpg"),
        ("s3://photos/a", "s3://photos/a/..\\b/1.jpg"),
        ("s3://photos/a", "s3://photos/a/.."),
        ("s3://photos/{tenant}", "s3://photos/other/1.jpg"),
        ("s3://photos/{tenant}", "s3://photos/acme2/1.jpg"),
        ("s3://photos/{tenant}", "s3://photos/acme/../other/1.jpg"),
        ("s3://photos/{tenant}", "s3://photos/{tenant}/1.jpg"),
        ("s3://photos/{tenant}", "s3://photos/acme%2f../other/1.jpg"),
    ],
)
def test_what_does_not_or_may_not_is_refused(location: str, uri: str) -> None:
    assert not reads(location, uri, "acme")


def test_a_tenant_s_location_is_nothing_to_a_job_without_a_tenant() -> None:
    assert not reads("s3://photos/{tenant}", "s3://photos/acme/1.jpg")
    assert not reads("s3://photos/{tenant}", "s3://photos//1.jpg")


ANYWHERE = AllowedLocations(LAYOUT)
LISTED = AllowedLocations(
    LAYOUT, inputs=[Location.parse("s3://maskq"), Location.parse("s3://photos")]
)


@pytest.mark.parametrize("allowed", [ANYWHERE, LISTED], ids=["anywhere", "listed"])
def test_what_maskq_wrote_is_its_tenant_s_whatever_is_listed(allowed: AllowedLocations) -> None:
    of = {tenant: LAYOUT.job(new_id(), tenant=tenant) for tenant in (None, "acme", "other")}
    for reader in of:
        job = LAYOUT.job(JOB, tenant=reader)
        for owner, owned in of.items():
            for place in (owned.upload, owned.manifest, owned.file(TOKEN, "mask.png")):
                mine = reader == owner
                assert (allowed.refuse_read(place, job) == "") is mine
                assert (allowed.refuse_write(place, job) == "") is mine
                odd = S3Uri(place.bucket, place.key.replace("maskq/", "maskq//x/%2e./"))
                assert (allowed.refuse_read(odd, job) == "") is mine
    assert allowed.refuse_read(S3Uri("maskq", "maskq/photo.jpg"), LAYOUT.job(JOB, tenant="x")) == ""


def test_the_deployment_s_own_prefix_needs_no_location() -> None:
    allowed = AllowedLocations(LAYOUT, inputs=[Location.parse("s3://photos")])
    for tenant in (None, "acme"):
        job = LAYOUT.job(JOB, tenant=tenant)
        assert allowed.refuse_read(job.upload, job) == ""
        assert allowed.refuse_write(job.manifest, job) == ""
        assert "MASKQ_ALLOWED_LOCATIONS" in allowed.refuse_read(S3Uri("maskq", "x.jpg"), job)


def test_nobody_writes_into_another_tenant_s_folder_by_an_output_prefix() -> None:
    for tenant in (None, "acme"):
        job = LAYOUT.job(JOB, tenant=tenant, output_prefix="s3://maskq/maskq/tenants/other")
        assert "another tenant" in ANYWHERE.refuse_write(job.manifest, job)


def test_an_upload_from_before_tenants_had_folders_is_read_by_its_job_alone() -> None:
    before = S3Uri("maskq", f"maskq/{JOB}/input")
    assert ANYWHERE.refuse_read(before, LAYOUT.job(JOB, tenant="acme")) == ""
    assert ANYWHERE.refuse_read(before, LAYOUT.job(new_id(), tenant="acme")) != ""


# --- settings -----------------------------------------------------------------------------------------


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> AllowedLocations:
    for name, value in variables.items():
        monkeypatch.setenv(f"MASKQ_ALLOWED_{name}", value)
    return WorkerSettings.load().locations()


def may(allowed: AllowedLocations, uri: str) -> tuple[bool, bool]:
    place, job = S3Uri.parse(uri), LAYOUT.job(JOB, tenant="acme")
    return allowed.refuse_read(place, job) == "", allowed.refuse_write(place, job) == ""


def test_outputs_go_where_inputs_come_from_unless_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert may(load(monkeypatch), "s3://any/x") == (True, True)
    allowed = load(monkeypatch, LOCATIONS=" s3://photos/{tenant}/ , s3://shared")
    assert may(allowed, "s3://photos/acme/x") == (True, True)
    assert may(allowed, "s3://shared/x") == (True, True)
    assert may(allowed, "s3://photos/x") == (False, False)
    allowed = load(monkeypatch, OUTPUT_LOCATIONS="s3://masks")
    assert may(allowed, "s3://shared/x") == (True, False)
    assert may(allowed, "s3://masks/x") == (False, True)


def test_outputs_may_be_bounded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = load(monkeypatch, OUTPUT_LOCATIONS="s3://masks")
    assert may(allowed, "s3://any/x") == (True, False)


def test_buckets_are_locations_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = load(monkeypatch, BUCKETS="photos, maskq")
    assert may(allowed, "s3://photos/x") == (True, True)
    assert may(allowed, "s3://other/x") == (False, False)


@pytest.mark.parametrize("other", ["LOCATIONS", "OUTPUT_LOCATIONS"])
def test_both_kinds_are_refused(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest) as raised:
        load(monkeypatch, **{"BUCKETS": "photos", other: "s3://photos"})
    assert f"MASKQ_ALLOWED_BUCKETS: set either this or MASKQ_ALLOWED_{other}" in str(raised.value)


@pytest.mark.parametrize(
    "value",
    ["photos", "s3://", "s3://photos/{user}", "s3://photos/../x", "https://x/y", "s3://A_b/"],
)
def test_what_is_not_a_location_is_said(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="MASKQ_ALLOWED_LOCATIONS: "):
        load(monkeypatch, LOCATIONS=f"s3://good,{value}")
