"""Part of `make check`: no tracked file holds what looks like a real secret.

It looks for the forms that providers give their keys, for private keys, and for passwords in URLs.
tools/allowed_secrets.toml lists examples and test values, each with the reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("allowed_secrets.toml")
_LARGEST = 2_000_000  # bytes; what is larger is data
FORMS = {
    "AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "AWS secret key": r"(?i)secret_?access_?key\W{1,4}[A-Za-z0-9/+]{40}\b",
    "private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s*[\r\n\\n]*[A-Za-z0-9+/]{20,}",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{60,})",
    "GitLab token": r"\bglpat-[\w-]{20}",
    "Slack token": r"\bxox[abeprs]-[\w-]{10,}",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "Google API key": r"\bAIza[\w-]{35}",
    "OpenAI or Anthropic key": r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}",
    "PyPI or npm token": r"\b(?:pypi-AgEI[\w-]{20,}|npm_[A-Za-z0-9]{36})",
    "JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "webhook secret": r"\bwhsec_[A-Za-z0-9+/]{24,}={0,2}",
    "password in a URL": r"\b[a-z][a-z+]{2,12}://[^\s/:@\"'`{}$<>]*:[^\s/:@\"'`{}$<>…]{12,}@",
}


def found(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, form and match of each."""
    for form, pattern in FORMS.items():
        for match in re.finditer(pattern, text):
            yield text.count("\n", 0, match.start()) + 1, form, match[0]


def main() -> int:
    allowed = tomllib.loads(FILE.read_text())["allowed"]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    unused, faults = set(allowed), 0
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path == FILE or not path.is_file() or path.stat().st_size > _LARGEST:
            continue
        raw = path.read_bytes()
        if b"\0" in raw:
            continue
        for line, form, match in found(raw.decode(errors="replace")):
            reasons = [one for one in allowed if one in match]
            unused.difference_update(reasons)
            if not reasons:
                faults += 1
                # The match itself would put the secret into CI's log.
                print(f"{name}:{line}: looks like a secret ({form})", file=sys.stderr)
    for one in unused:
        faults += 1
        print(f"{FILE.name}: nothing matches {one!r} any more", file=sys.stderr)
    if faults:
        print(f"If it is none, say why in {FILE.relative_to(ROOT)}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
