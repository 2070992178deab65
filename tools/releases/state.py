"""Redis and a bucket as plain JSON, and back. Unlike DUMP, it does not depend on a server's version."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis

_STAMP = re.compile(r"(?<![\w.])\d{13}(?!\w)")
_NEAR_MS = 30 * 86_400_000


def write_json(path: Path, document: object) -> None:
    """In a form that makes small differences small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def now_ms(server: redis.Redis) -> int:
    """The server's clock: milliseconds since the epoch."""
    seconds, microseconds = server.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


# --- Redis --------------------------------------------------------------------------------------------


def dump_redis(server: redis.Redis) -> dict[str, dict[str, Any]]:
    """Name → {type, value, ttl_ms}, of every key; ttl_ms only for a key that expires.

    server: decodes responses.
    """
    return {name: _dumped(server, name) for name in sorted(server.scan_iter(count=1000))}


def _dumped(server: redis.Redis, name: str) -> dict[str, Any]:
    kind = server.type(name)
    found: dict[str, Any] = {"type": kind, "value": _value(server, name, kind)}
    if (left_ms := server.pttl(name)) >= 0:
        found["ttl_ms"] = left_ms
    if kind == "stream":
        found["groups"] = [_group(server, name, one) for one in server.xinfo_groups(name)]
    return found


def _value(server: redis.Redis, name: str, kind: str) -> Any:
    match kind:
        case "hash":
            return server.hgetall(name)
        case "zset":
            return server.zrange(name, 0, -1, withscores=True)
        case "list":
            return server.lrange(name, 0, -1)
        case "set":
            return sorted(server.smembers(name))
        case "stream":
            return server.xrange(name)
        case "string":
            return server.get(name)
        case _:
            raise TypeError(f"{name} is a {kind}, which cannot be written as JSON")


def _group(server: redis.Redis, name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    pending = server.xpending_range(name, about["name"], "-", "+", 1000)
    return {
        "name": about["name"],
        "last": about["last-delivered-id"],
        "read": about["entries-read"],
        "pending": [[one["message_id"], one["consumer"]] for one in pending],
    }


def load_redis(
    server: redis.Redis, keys: Mapping[str, Mapping[str, Any]], written_ms: int, by_ms: int
) -> None:
    """Write the keys, with all times near `written_ms` moved by `by_ms`."""
    for name, key in moved(keys, written_ms, by_ms).items():
        _load(server, name, key)


def moved(document: Any, written_ms: int, by_ms: int) -> Any:
    """The document with each number near `written_ms`, milliseconds since the epoch, moved."""
    return json.loads(moved_text(json.dumps(document), written_ms, by_ms))


def moved_text(text: str, written_ms: int, by_ms: int) -> str:
    """`moved` for the text of a document, which stays the same otherwise."""

    def one(match: re.Match[str]) -> str:
        stamp = int(match[0])
        return str(stamp + by_ms) if abs(stamp - written_ms) < _NEAR_MS else match[0]

    return _STAMP.sub(one, text)


def _load(server: redis.Redis, name: str, key: Mapping[str, Any]) -> None:
    value = key["value"]
    match key["type"]:
        case "hash":
            server.hset(name, mapping=value)
        case "zset":
            server.zadd(name, dict(value))
        case "list":
            server.rpush(name, *value)
        case "set":
            server.sadd(name, *value)
        case "stream":
            _load_stream(server, name, key)
        case _:
            server.set(name, value)
    if "ttl_ms" in key:
        server.pexpire(name, key["ttl_ms"])


def _load_stream(server: redis.Redis, name: str, key: Mapping[str, Any]) -> None:
    for entry, fields in key["value"]:
        server.xadd(name, fields, id=entry)
    for group in key["groups"]:
        server.xgroup_create(name, group["name"], group["last"], entries_read=group["read"])
        for entry, consumer in group["pending"]:
            server.xclaim(name, group["name"], consumer, 0, [entry], force=True, justid=True)


# --- S3 -----------------------------------------------------------------------------------------------


def dump_bucket(store: Any, bucket: str) -> dict[str, dict[str, Any]]:
    """Key → {text or base64, type, metadata}, of every object. store: a boto3 client."""
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    names = [one["Key"] for page in pages for one in page.get("Contents", ())]
    return {name: _object(store.get_object(Bucket=bucket, Key=name)) for name in names}


def _object(found: Mapping[str, Any]) -> dict[str, Any]:
    body = found["Body"].read()
    about = {"type": found["ContentType"], "metadata": found["Metadata"]}
    if found["ContentType"].startswith("application/json"):
        return {**about, "text": body.decode()}
    return {**about, "base64": base64.b64encode(body).decode()}


def load_bucket(
    store: Any, bucket: str, objects: Mapping[str, Mapping[str, Any]], written_ms: int, by_ms: int
) -> None:
    """Write the objects; documents with their times moved as those in Redis are."""
    for name, one in objects.items():
        body = _body(one, written_ms, by_ms)
        store.put_object(
            Bucket=bucket, Key=name, Body=body, ContentType=one["type"], Metadata=one["metadata"]
        )


def _body(one: Mapping[str, Any], written_ms: int, by_ms: int) -> bytes:
    if "base64" in one:
        return base64.b64decode(one["base64"])
    return moved_text(one["text"], written_ms, by_ms).encode()
