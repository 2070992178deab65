"""The S3 emulator with the users of deploy/s3: each role has a key of its own, and may do what its
policy allows.

`python iam_server.py` runs in place of `python -m maskq_standalone.servers.s3_process`. IDENTITIES is a
JSON file with a name, a key and a secret of each role, in SeaweedFS's form. POLICIES is the folder of
policies.
Where there is no `NAME.json`, `admin` may do all and every other role nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
_NOTHING = {"Effect": "Deny", "Action": "*", "Resource": "*"}
# A gateway has a publisher's rights for its callers, and looks at uploads (docs/least-privilege.md).
_FILES_OF = {"gateway": ("publisher", "gateway-sqs")}


def policy_of(role: str, folder: Path, placeholders: Mapping[str, str]) -> dict[str, Any]:
    """The role's policy, with its placeholders (<NAME>) replaced."""
    files = [folder / f"{name}.json" for name in _FILES_OF.get(role, (role,))]
    if not all(file.exists() for file in files):
        return {
            "Version": "2012-10-17",
            "Statement": [_ALL if role == "admin" else _NOTHING],
        }
    policies = [_filled(file.read_text(), placeholders) for file in files]
    statements = [one for policy in policies for one in policy["Statement"]]
    return {**policies[0], "Statement": statements}


def _filled(text: str, placeholders: Mapping[str, str]) -> dict[str, Any]:
    for name, value in placeholders.items():
        text = text.replace(f"<{name}>", value)
    policy: dict[str, Any] = json.loads(text)
    return policy


def identities(file: Path) -> dict[str, tuple[str, str]]:
    """Key and secret by role."""
    return {
        one["name"]: (one["credentials"][0]["accessKey"], one["credentials"][0]["secretKey"])
        for one in json.loads(file.read_text())["identities"]
    }


def document(keys: Mapping[str, tuple[str, str]]) -> str:
    """The identities as a file has them."""
    listed = [
        {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}]}
        for name, (key, secret) in keys.items()
    ]
    return json.dumps({"identities": listed})


def _add(role: str, key: str, secret: str, policy: Mapping[str, Any]) -> None:
    """As IAM's CreateUser, CreateAccessKey and PutUserPolicy do, but with a key that is given."""
    from ministack.services import iam

    iam._create_user({"UserName": [role]})
    iam._access_keys[key] = {
        "UserName": role,
        "AccessKeyId": key,
        "SecretAccessKey": secret,
        "Status": "Active",
        "CreateDate": iam._now(),
    }
    said = iam._put_user_policy(
        {"UserName": [role], "PolicyName": [role], "PolicyDocument": [json.dumps(policy)]}
    )
    if said[0] != 200:
        sys.exit(f"the policy of {role} is refused: {said[2]!r}")


def _may_list(policy: Mapping[str, Any]) -> bool:
    """Whether it may list a whole bucket; which one is not looked at."""
    return any(
        "s3:ListBucket" in json.dumps(one["Action"]) and "Condition" not in one
        for one in policy["Statement"]
        if one is not _ALL
    ) or policy["Statement"] == [_ALL]


class AsAws:
    """An object that is missing is AccessDenied for whoever may not list its bucket, as on AWS."""

    def __init__(self, app: Any, blind: set[str]) -> None:
        self._app = app
        self._blind = blind  # keys that may not list

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        key = headers.get(b"authorization", b"").partition(b"Credential=")[2].partition(b"/")[0]
        if key.decode() not in self._blind or scope.get("method") not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        hidden = False

        async def answer(message: dict[str, Any]) -> None:
            nonlocal hidden
            if message["type"] == "http.response.start" and message["status"] == 404:
                hidden = True
                message = {
                    "type": "http.response.start",
                    "status": 403,
                    "headers": [(b"content-type", b"application/xml")],
                }
            elif hidden and message["type"] == "http.response.body":
                if message.get("more_body"):
                    return
                message = {"type": "http.response.body"}
                message["body"] = body if scope["method"] == "GET" else b""
            await send(message)

        await self._app(scope, receive, answer)


def main() -> None:
    # The server's own key, which may do all; without one the emulator takes a key that everybody knows.
    os.environ.setdefault("AWS_ACCESS_KEY_ID", f"AKIA{secrets.token_hex(8).upper()}")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", secrets.token_urlsafe())
    import ministack.app

    folder = Path(os.environ["POLICIES"])
    placeholders = json.loads(os.environ["PLACEHOLDERS"])
    blind = set()
    for role, (key, secret) in identities(Path(os.environ["IDENTITIES"])).items():
        policy = policy_of(role, folder, placeholders)
        _add(role, key, secret, policy)
        if not _may_list(policy):
            blind.add(key)
    sys.argv = ["ministack"]
    ministack.app.app = AsAws(ministack.app.app, blind)
    ministack.app.main()


if __name__ == "__main__":
    main()
