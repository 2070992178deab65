"""Where maskq writes, and that nothing else is taken for it."""

from __future__ import annotations

import re

import pytest

from maskq.contract import JobResult, Output, SegmentRequest
from maskq.contract.ids import is_own_id, new_token
from maskq.contract.locations import MAX_KEY_BYTES, S3Uri
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import JobStorage, StorageLayout, class_file, is_output

HOME = S3Uri("maskq", "maskq")
LAYOUT = StorageLayout(HOME)
# Fixed: parallel processes must collect the same tests.
JOB, TOKEN = "01a206e7-a91c-7f60-938b-7a3d65bbbf53", "vBAek5XhHv_EKwH0"
OTHER = "01a206e7-a91c-7f60-938b-7a3d65bbbf54"
MASK_URL = "https://customer.example/mask.png"
JOBS = {
    "plain": LAYOUT.job(JOB),
    "tenant": LAYOUT.job(JOB, tenant="acme"),
    "output_prefix": LAYOUT.job(JOB, output_prefix="s3://photos/out"),
    "bucket's root": StorageLayout(S3Uri("maskq", "")).job(JOB),
}


def written(job: JobStorage, token: str = TOKEN) -> list[S3Uri]:
    files = [job.file(token, one.of_class(7)) for one in FILES.values()]
    return [job.upload, job.manifest, *files]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_whatever_maskq_writes_for_a_job_is_known_again(job: JobStorage) -> None:
    assert all(job.has(place) for place in written(job))
    assert len({str(place) for place in written(job)}) == len(FILES) + 2
    assert {
        output for output in Output if job.is_output(output, str(job.output(TOKEN, output)))
    } == {*Output}
    assert all(is_output(place.key) for place in written(job) if place != job.upload)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize(
    "name",
    [
        "photo.jpg", "input/photo.jpg", "input.jpg", "result.json.bak", "result.json/x", "xresult.json",
        "short/mask.png", f"{TOKEN}/photo.png", f"{TOKEN}/binary/x.png", f"{TOKEN}/binary/../../input",
        f"{TOKEN}/", f"{TOKEN}/input", f"{OTHER}/{TOKEN}/mask.png", f"/{TOKEN}/mask.png", "",
        f"{TOKEN}/mask.png\n", f"{TOKEN}é/mask.png",
    ],
)  # fmt: skip
def test_other_names_in_its_folder_are_not_its_own(job: JobStorage, name: str) -> None:
    assert not any(job.has(S3Uri(at.bucket, f"{at.key}/{name}")) for at in job.folders)


def test_nor_are_objects_of_other_jobs_and_places() -> None:
    mine = JOBS["output_prefix"]
    for other in (LAYOUT.job(OTHER), LAYOUT.job(OTHER, tenant="acme")):
        assert not any(mine.has(place) for place in written(other))
    assert not mine.has(S3Uri("another", mine.manifest.key))
    assert not mine.has(S3Uri("photos", f"out/{JOB}x/result.json"))
    assert not mine.has(mine.outputs / "input")  # nothing is uploaded to an output_prefix


@pytest.mark.parametrize(
    "task_id", ["incoming", "..", ".", "2026", "a/b", "", JOB.upper(), f"{JOB} "]
)
def test_an_id_from_outside_is_no_part_of_a_path(task_id: str) -> None:
    assert not is_own_id(task_id)
    job = LAYOUT.job(task_id, output_prefix="s3://photos/out")
    for place in (job.upload, job.manifest, *job.folders):
        below = place.key.removeprefix("maskq/").removeprefix("out/").split("/")
        assert is_own_id(below[0])


def test_a_tenant_s_objects_have_a_folder_and_their_owner_is_known() -> None:
    for name, tenant in (("plain", None), ("tenant", "acme")):
        for place in written(JOBS[name]):
            owner = LAYOUT.owner(place)
            assert owner is not None
            assert (owner.tenant, owner.job_id) == (tenant, JOB)
    folder = LAYOUT.tenant("acme")
    assert all(str(place).startswith(f"{folder}/") for place in written(JOBS["tenant"]))
    strange = ("photo.jpg", f"{JOB}/photo.jpg", f"tenants/acme/{JOB}/photo.jpg", f"x/{JOB}/input")
    assert [LAYOUT.owner(HOME / name) for name in strange] == [None] * 4
    assert LAYOUT.owner(S3Uri("another", JOBS["plain"].upload.key)) is None


def test_an_upload_from_before_tenants_had_folders_is_still_the_job_s() -> None:
    job = JOBS["tenant"]
    assert job.is_upload(f"s3://maskq/maskq/{JOB}/input")
    assert job.has(HOME / JOB / "input")
    assert not job.is_upload(f"s3://maskq/maskq/{OTHER}/input")
    assert not job.is_upload(f"s3://photos/maskq/{JOB}/input")


def result(**outputs: str) -> JobResult:
    return JobResult(width=1, height=1, model="m", outputs=outputs)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_result_that_the_job_can_have_made_is_believed(job: JobStorage) -> None:
    request = SegmentRequest(
        image_uri="s3://a-b/c", outputs={*Output}, output_urls={"mask": f"{MASK_URL}?a=b"}
    )
    places = {output.value: str(job.output(TOKEN, output)) for output in Output}
    assert job.refusal(result(**places | {"mask": f"{MASK_URL}?…"}), request) == ""
    assert job.refusal(result(**places | {"mask": f"{MASK_URL}?…"}), request.redacted()) == ""


GOOD = str(JOBS["tenant"].output(TOKEN, Output.MASK))
FOREIGN = [
    "s3://payroll/salaries.csv",
    "s3://maskq/maskq/tenants/acme/mask.png",
    GOOD.replace(JOB, OTHER),
    GOOD.replace("acme", "other"),
    GOOD.replace("s3://maskq/", "s3://photos/"),
    GOOD.replace("mask.png", "overlay.jpg"),
    GOOD.replace("mask.png", "../../../other/mask.png"),
    GOOD.replace("mask.png", ""),
    GOOD.replace(TOKEN, "short"),
    GOOD + "/",
    GOOD + "?…",
    MASK_URL,
    "file:///etc/passwd",
    "",
]


@pytest.mark.parametrize("uri", FOREIGN)
def test_a_result_that_names_anything_else_is_not(uri: str) -> None:
    request = SegmentRequest(image_uri="s3://a-b/c")
    assert JOBS["tenant"].refusal(result(mask=GOOD), request) == ""
    assert "outside the job's own folder" in JOBS["tenant"].refusal(result(mask=uri), request)


def test_nor_is_one_with_other_outputs_attempts_or_urls() -> None:
    job, both = JOBS["plain"], SegmentRequest(image_uri="s3://a-b/c", outputs={"mask", "stats"})
    mask = str(job.output(TOKEN, Output.MASK))
    assert "outputs that the job asks for" in job.refusal(result(mask=mask), both)
    stats = str(job.output(new_token(), Output.STATS))
    assert "several attempts" in job.refusal(result(mask=mask, stats=stats), both)
    by_url = SegmentRequest(image_uri="s3://a-b/c", output_urls={"mask": MASK_URL})
    assert "at the URL" in job.refusal(result(mask=mask), by_url)
    assert "at the URL" in job.refusal(result(mask="https://other.example/x"), by_url)


def test_the_ledger_knows_an_upload_by_the_same_name() -> None:
    from maskq.ledger.scripts import script

    (name,) = re.findall(r"'/' \.\. id \.\. '([^']+)'", script("finish").text)
    assert JOBS["plain"].upload.key.endswith(f"{JOB}{name}")


def test_the_longest_output_prefix_leaves_room_for_every_name() -> None:
    prefix = "s3://photos/" + "x" * 953
    request = SegmentRequest(image_uri="s3://a-b/c", output_prefix=prefix)
    with pytest.raises(ValueError, match="no room"):
        SegmentRequest(image_uri="s3://a-b/c", output_prefix=f"{prefix}x")
    job = LAYOUT.job(JOB, output_prefix=request.output_prefix)
    longest = class_file(job.output(TOKEN, Output.BINARY), Output.BINARY, 65535)
    assert job.has(longest)
    assert len(longest.key) <= MAX_KEY_BYTES
