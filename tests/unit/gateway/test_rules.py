"""Rules: what they match, how their errors name rule and field, and that they never loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskq import InvalidRequest
from maskq.contract.ids import new_id, new_token
from maskq.contract.locations import S3Uri
from maskq.contract.outputs import FILES
from maskq.contract.storage_layout import is_output
from maskq_gateway.rules.rule import Rule, Rules
from maskq_gateway.rules.triggers import idempotency_key
from maskq_gateway.sources.notifications import ObjectCreated

ROOT = Path(__file__).parents[3]
OWN = S3Uri("maskq", "maskq")

JOB, TOKEN = "01a206e7-a91c-7f60-938b-7a3d65bbbf53", "vBAek5XhHv_EKwH0"


def rule(**fields: Any) -> dict[str, Any]:
    return {"name": "scans", "bucket": "photos", **fields}


def load(tmp_path: Path, text: str) -> Rules:
    file = tmp_path / "rules.toml"
    file.write_text(text, encoding="utf-8")
    return Rules.load(file, own_output=OWN)


def test_a_file_with_every_field(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        """
        [[rule]]
        name = "scans"
        bucket = "photos"
        prefix = "in/"
        suffixes = [".JPG", ".png"]
        model = "demo"
        outputs = ["mask", "stats", "overlay"]
        classes = ["sky"]
        overlay_alpha = 0.3
        overlay_legend = true
        mode = "tiled"
        max_attempts = 2
        priority = "low"
        tenant = "acme"
        output_prefix = "s3://masks/out"
        output_name = "{dir}/{stem}.{output}"
        output_replace = true
        output_error_file = true
        content_types = ["image/jpeg", "image/*"]
        webhook = "https://example.com/hook?token=secret"
        webhook_events = ["job.failed"]
        metadata = { source = "scanner" }
        queue_ttl_s = 60
        run_timeout_s = 30.5

        [[rule]]
        name = "all"
        bucket = "photos"
        """,
    )
    first, second = rules.each
    assert first.suffixes == (".jpg", ".png")
    request = first.example()
    assert request.metadata == {"source": "scanner", "trigger": "scans"}
    assert (request.tenant, request.queue_ttl_s, request.output_prefix) == (
        "acme", 60, "s3://masks/out",
    )  # fmt: skip
    assert (request.mode, request.classes, request.max_attempts) == ("tiled", {"sky"}, 2)
    assert (request.overlay_alpha, request.overlay_legend) == (0.3, True)
    assert request.output_name == "{dir}/{stem}.{output}"
    assert (request.output_replace, request.output_error_file) == (True, True)
    assert second.outputs == {"mask"}
    assert "secret" not in json.dumps(first.public())
    # Both take one object, each for a job of its own
    assert rules.taking("photos", "in/1.Jpg") == (first, second)
    assert rules.taking("photos", "in/1.tiff") == (second,)
    assert rules.taking("photos", "other/1.jpg") == (second,)
    assert rules.taking("others", "in/1.jpg") == ()
    assert rules.taking("photos", "in/1.txt") == ()


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bucket": "Photos!"}, "rule 'scans': bucket and prefix: .*not a valid bucket name"),
        ({"sufixes": [".jpg"]}, "rule 'scans': sufixes"),
        ({"suffixes": []}, "rule 'scans': suffixes"),
        ({"suffixes": [".jpg", ""]}, "rule 'scans': suffixes.1"),
        ({"outputs": ["masks"]}, "rule 'scans': outputs"),
        ({"outputs": []}, "rule 'scans': outputs"),
        ({"priority": "urgent"}, "rule 'scans': priority"),
        ({"tenant": "a b"}, "rule 'scans': tenant"),
        ({"model": ""}, "rule 'scans': model"),
        ({"output_prefix": "masks/"}, "rule 'scans': output_prefix: .*not a valid S3 URI"),
        ({"output_name": "{stem}"}, "rule 'scans': .*output_name needs an output_prefix"),
        (
            {"output_name": "../{stem}", "output_prefix": "s3://masks"},
            r"rule 'scans': output_name: .*the name '\.\./image'",
        ),
        (
            {"output_name": "{name}", "output_prefix": "s3://masks"},
            r"rule 'scans': output_name: .*\{name\} is not a placeholder",
        ),
        ({"content_types": ["text/plain"]}, "rule 'scans': content_types.0"),
        ({"content_types": "image/*"}, "rule 'scans': content_types"),
        ({"webhook": "ftp://x"}, "rule 'scans': webhook"),
        ({"webhook_events": []}, "rule 'scans': webhook_events"),
        ({"metadata": {"n": 1}}, "rule 'scans': metadata.n"),
        ({"metadata": {"trigger": "x"}}, "rule 'scans': metadata: .*is taken"),
        ({"metadata": {"x": "y" * 5000}}, "rule 'scans': metadata: .*at most 4096"),
        ({"queue_ttl_s": 0}, "rule 'scans': queue_ttl_s"),
        ({"run_timeout_s": "soon"}, "rule 'scans': run_timeout_s"),
        ({"image_uri": "s3://a/b"}, "rule 'scans': image_uri"),
        ({"image_etag": "e"}, "rule 'scans': image_etag: .*concerns one image"),
        ({"image_version_id": "v"}, "rule 'scans': image_version_id: .*concerns one image"),
        ({"output_urls": {}}, "rule 'scans': output_urls: .*concerns one image"),
        ({"name": ""}, "rule 1: name"),
    ],
)
def test_a_mistake_names_rule_and_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        Rules.of([rule(**fields)], own_output=OWN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no"),
        ("[[rules]]\nname = 'a'", "'rules' is not a valid key"),
        ("[rule]\nname = 'a'", "has no"),
        ("rule = [1]", "rule 1 is not a table"),
        ("[[rule]", "not valid TOML"),
        ("[[rule]]\nname = 'a'\nbucket = 1", "rule 'a': bucket"),
        ("[[rule]]\nname='a'\nbucket='bbb'\n[[rule]]\nname='a'\nbucket='ccc'", "named 'a'"),
    ],
)
def test_a_mistake_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"rules\.toml: .*{said}"):
        load(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.toml: cannot be read"):
        Rules.load(tmp_path / "none.toml", own_output=OWN)


WATCHES_OWN = {"bucket": "maskq"}
# Its attempts' outputs have names that no rule below takes.
NAMED = {"prefix": "in/", "output_prefix": "s3://photos", "suffixes": [".mask.png"]}
LOOPS = [
    # id, rules, who would start whom
    ("whole-bucket", [WATCHES_OWN], "itself"),
    ("own-directory", [WATCHES_OWN | {"prefix": "maskq/"}], "itself"),
    ("part-of-a-name", [WATCHES_OWN | {"prefix": "ma"}], "itself"),
    ("name-without-slash", [WATCHES_OWN | {"prefix": "maskq"}], "itself"),
    ("below-the-outputs", [WATCHES_OWN | {"prefix": "maskq/in/"}], "itself"),
    ("to-the-root", [{"output_prefix": "s3://photos", "prefix": "in/"}], "itself"),
    ("slash-at-the-end", [{"output_prefix": "s3://photos/in/", "prefix": "in/"}], "itself"),
    ("overlay", [WATCHES_OWN | {"outputs": ["overlay"], "suffixes": [".JPG"]}], "itself"),
    ("stats", [WATCHES_OWN | {"outputs": ["stats"], "suffixes": ["stats.json"]}], "itself"),
    ("manifest", [WATCHES_OWN | {"suffixes": [".json"]}], "itself"),
    ("logits", [WATCHES_OWN | {"outputs": ["logits"], "suffixes": [".npy"]}], "itself"),
    ("named", [NAMED | {"output_name": "{dir}/{stem}.{output}"}], "itself"),
    ("named-below", [NAMED | {"output_name": "in/masks/{stem}"}], "itself"),
    ("named-by-folder", [NAMED | {"output_name": "{stem}", "outputs": ["binary"]}], "itself"),
    ("named-exactly", [NAMED | {"suffixes": ["latest.png"], "output_name": "in/latest"}], "itself"),
    ("named-with-an-end", [NAMED | {"suffixes": [".x.png"], "output_name": "{stem}"}], "itself"),
    (
        "error-file",
        [NAMED | {"suffixes": [".error.json"], "output_name": "{stem}", "output_error_file": True}],
        "itself",
    ),
    (
        "named-by-type",
        [NAMED | {"suffixes": [".x"], "content_types": ["image/png"], "output_name": "in/{stem}"}],
        "itself",
    ),
    (
        "named-into-another",
        [
            NAMED | {"name": "a", "output_name": "thumbs/{stem}"},
            NAMED | {"name": "b", "prefix": "thumbs/", "output_prefix": "s3://else"},
        ],
        "rule 'b'",
    ),
    (
        "into-another",
        [{"name": "a", "output_prefix": "s3://thumbs/x"}, {"name": "b", "bucket": "thumbs"}],
        "rule 'b'",
    ),
    (
        "into-an-earlier-one",
        [{"name": "b", "bucket": "thumbs"}, {"name": "a", "output_prefix": "s3://thumbs/x"}],
        "rule 'b'",
    ),
]
NO_LOOPS = [
    ("another-bucket", [{}]),
    ("beside", [WATCHES_OWN | {"prefix": "in/"}]),
    ("longer-name", [WATCHES_OWN | {"prefix": "maskq-in/"}]),
    ("own-moved-away", [WATCHES_OWN | {"output_prefix": "s3://masks"}]),
    ("another-suffix", [WATCHES_OWN | {"suffixes": [".jpg"]}]),
    ("only-stats", [WATCHES_OWN | {"outputs": ["stats"]}]),
    ("longer-suffix", [WATCHES_OWN | {"suffixes": [".scan.png"]}]),
    ("named-beside", [NAMED | {"output_name": "masks/{dir}/{stem}"}]),
    (
        "named-with-another-end",
        [NAMED | {"suffixes": [".scan.png"], "output_name": "in/{stem}.{output}"}],
    ),
    (
        "named-of-another-type",
        [
            NAMED
            | {"content_types": ["image/jpeg"], "suffixes": [".x"], "output_name": "in/{stem}.m"}
        ],
    ),
    (
        "two-apart",
        [
            {"name": "a", "prefix": "a/", "output_prefix": "s3://photos/out"},
            {"name": "b", "prefix": "b/", "output_prefix": "s3://photos/outer"},
        ],
    ),
]


@pytest.mark.parametrize(("tables", "whom"), [x[1:] for x in LOOPS], ids=[x[0] for x in LOOPS])
def test_what_would_loop_is_refused(tables: list[dict[str, Any]], whom: str) -> None:
    with pytest.raises(InvalidRequest, match=f"would start {whom} by its own outputs"):
        Rules.of([rule(**table) for table in tables], own_output=OWN)


@pytest.mark.parametrize("tables", [x[1] for x in NO_LOOPS], ids=[x[0] for x in NO_LOOPS])
def test_what_cannot_loop_is_taken(tables: list[dict[str, Any]]) -> None:
    assert len(Rules.of([rule(**table) for table in tables], own_output=OWN).each) == len(tables)


def test_the_sentence_says_what_to_change() -> None:
    with pytest.raises(InvalidRequest) as caught:
        Rules.of([rule(bucket="maskq")], own_output=OWN)
    assert "writes mask.png below s3://maskq/maskq/" in str(caught.value)
    assert "give rule 'scans' an output_prefix outside" in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "masks/", "a/b c/ü\n/"])
@pytest.mark.parametrize("file", [*(one.of_class(7) for one in FILES.values()), "result.json"])
def test_outputs_of_any_deployment_are_taken_for_what_they_are(prefix: str, file: str) -> None:
    token = "" if file == "result.json" else f"{new_token()}/"
    key = f"{prefix}{new_id()}/{token}{file}"
    assert is_output(key)
    watching = Rules.of([rule(suffixes=[".png", ".jpg", ".json", ".npy"])], own_output=OWN)
    assert watching.taking("photos", key) == ()
    assert watching.taking("photos", key.replace(file, f"my-{file}"))


@pytest.mark.parametrize(
    "key",
    [
        "mask.png",
        f"{JOB}/mask.png",
        f"{JOB}/short/mask.png",
        f"x{JOB}/{TOKEN}/mask.png",
        f"{JOB}/{TOKEN}/photo.png",
        f"{JOB}/{TOKEN}/mask.png/1.jpg",
    ],
)
def test_other_keys_are_no_outputs(key: str) -> None:
    assert not is_output(key)


def test_the_idempotency_key_is_of_the_state_and_of_what_is_asked() -> None:
    event = ObjectCreated("photos", "1.jpg", etag="e", sequencer="0A")
    plain = Rule(**rule())
    keys = [
        idempotency_key(event, plain),
        idempotency_key(event, Rule(**rule(name="other"))),
        idempotency_key(event, Rule(**rule(outputs=["mask", "stats"]))),
        idempotency_key(event, Rule(**rule(tenant="acme"))),
        idempotency_key(ObjectCreated("photos", "1.jpg", etag="e", sequencer="0B"), plain),
        idempotency_key(ObjectCreated("photos", "1.jpg", version_id="v1"), plain),
        idempotency_key(ObjectCreated("photos", "2.jpg", etag="e", sequencer="0A"), plain),
    ]
    assert len(set(keys)) == len(keys)
    # The text of an output_prefix counts, as it always did, though both name one place
    whole = [Rule(**rule(output_prefix=uri)) for uri in ("s3://masks", "s3://masks/")]
    assert len({idempotency_key(event, one) for one in whole}) == 2
    assert whole[0].example().output_prefix == whole[1].example().output_prefix
    # And the same where only what it takes changed, or what the store tells beside
    again = ObjectCreated("photos", "1.jpg", etag="e", sequencer="0A", size=1, when="today")
    assert idempotency_key(again, Rule(**rule(prefix="1"))) == keys[0]
