"""The passwords of docker-compose.yml: made at the first start, one folder (a volume) for each role.

`credentials.py make` writes the passwords that are missing below /secrets, and always Redis's users and
the S3 server's keys, from their templates. `credentials.py show REDIS-PORT S3-PORT [ROLE]` prints the
variables of a role (default: publisher) for a program on the host. Standard library only.
"""

from __future__ import annotations

import json
import secrets
import sys
from base64 import b64encode
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import urlsplit

SECRETS = Path("/secrets")
USERS = Path(__file__).parent.parent / "redis" / "users.acl"
PLACEHOLDER = ">CHANGE-ME"
REDIS_ROLES = ("publisher", "reader", "worker", "webhooks", "gateway", "celery")
# The rights of deploy/s3 in SeaweedFS's words. It knows no pattern inside a key: there a publisher may
# write outputs, too. `masks` is the output prefix of examples/uploads.toml.
_PUBLISHES = [
    *("Read:maskq/maskq/*", "Write:maskq/maskq/*", "List:maskq"),
    *("Read:maskq/masks/*", "Write:maskq/masks/*"),
]
S3_RIGHTS = {
    "admin": ["Admin"],  # makes the bucket
    "publisher": _PUBLISHES,
    "gateway": _PUBLISHES,  # for callers of the HTTP API
    "reader": ["Read:maskq/maskq/*", "Read:maskq/masks/*"],
    "worker": ["Read:maskq", "Write:maskq/maskq/*", "Write:maskq/masks/*", "List:maskq"],
}
WEBHOOK_SECRET = ("webhooks", "publisher")  # who signs, and a backend that checks signatures


def make() -> None:
    """Existing passwords stay, so that running containers and other programs keep theirs."""
    passwords = {role: _redis_password(SECRETS / role) for role in REDIS_ROLES}
    for role in ("admin", "health"):
        passwords[role] = _kept(SECRETS / "redis" / role, secrets.token_urlsafe(32))
    _write(SECRETS / "redis" / "users.acl", _users(passwords))
    identities = [
        {
            "name": role,
            "credentials": [dict(zip(("accessKey", "secretKey"), _s3_key(role), strict=True))],
            "actions": rights,
        }
        for role, rights in S3_RIGHTS.items()
    ]
    _write(SECRETS / "s3" / "s3.json", json.dumps({"identities": identities}, indent=2) + "\n")
    signing = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    for role in WEBHOOK_SECRET:
        signing = _kept(SECRETS / role / "webhook-secret", signing)
    _kept(SECRETS / "gateway" / "trigger-token", secrets.token_urlsafe(32))


def show(role: str, redis_port: str, s3_port: str) -> None:
    """As lines of a file that a shell or `docker run --env-file` reads."""
    folder = SECRETS / role
    password = urlsplit((folder / "redis-url").read_text()).password
    lines = {
        "MASKQ_REDIS_URL": f"redis://{role}:{password}@127.0.0.1:{redis_port}/0",
        "MASKQ_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "MASKQ_S3_BUCKET": "maskq",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    if (folder / "aws").exists():
        key, secret = _s3_key(role)
        lines |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    if (folder / "webhook-secret").exists():
        lines["MASKQ_WEBHOOK_SECRET"] = (folder / "webhook-secret").read_text().strip()
    for name, value in lines.items():
        print(f"{name}={value}")


def _redis_password(folder: Path) -> str:
    """Of letters, digits, - and _, so that it stands in a URL as it is."""
    role = folder.name
    url = f"redis://{role}:{secrets.token_urlsafe(32)}@redis:6379/0"
    return urlsplit(_kept(folder / "redis-url", url)).password or ""


def _users(passwords: dict[str, str]) -> str:
    """The users of the template that have a password here, and one for the health check."""
    lines = [
        line.replace(PLACEHOLDER, f">{passwords.get(user)}")
        for line in USERS.read_text().splitlines()
        if (user := line.split()[1]) == "default" or user in passwords
    ]
    lines.append(f"user health on >{passwords['health']} resetkeys resetchannels -@all +ping")
    return "".join(f"{line}\n" for line in lines)


def _s3_key(role: str) -> tuple[str, str]:
    """In the form of ~/.aws/credentials."""
    new = (
        f"[default]\naws_access_key_id = MASKQ{secrets.token_hex(8).upper()}\n"
        f"aws_secret_access_key = {secrets.token_urlsafe(30)}\n"
    )
    parser = ConfigParser(interpolation=None)
    parser.read_string(_kept(SECRETS / role / "aws", new))
    found = parser["default"]
    return found["aws_access_key_id"], found["aws_secret_access_key"]


def _kept(file: Path, new: str) -> str:
    """What the file holds already, or `new`, written now."""
    if not file.exists():
        _write(file, new)
    return file.read_text().strip()


def _write(file: Path, text: str) -> None:
    """In one step. Readable by all in a container: a volume is mounted where its role runs, only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.chmod(0o444)
    new.replace(file)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make"]:
            make()
        case ["show", redis_port, s3_port, *role]:
            show((role or ["publisher"])[0], redis_port, s3_port)
        case _:
            sys.exit(__doc__)
