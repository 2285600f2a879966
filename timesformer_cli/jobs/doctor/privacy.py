"""What nobody wants in a public issue: tokens, passwords, the name of the user."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from timesformer_cli.jobs.doctor.findings import Finding

# Variables with secrets that libraries may quote in their errors.
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

_TOKEN = re.compile(r"\bhf_\w+|(?<=[Bb]earer )\S+")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]*@")


def cleaned(finding: Finding) -> Finding:
    """The same without secrets and without the user: the home directory is `~`, the user's name in paths is `USER`."""
    return replace(
        finding,
        message=_cleaned(finding.message),
        remedy=_cleaned(finding.remedy),
        trace=_cleaned(finding.trace),
        facts=_cleaned(finding.facts),
    )


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _cleaned_text(value)
    if isinstance(value, Mapping):
        return {name: _cleaned(content) for name, content in value.items()}
    return [_cleaned(each) for each in value] if isinstance(value, (list, tuple)) else value


def _cleaned_text(text: str) -> str:
    for name in _SECRETS:
        if secret := os.environ.get(name, "").strip():
            text = text.replace(secret, "***")
    text = _CREDENTIALS.sub("", _TOKEN.sub("***", text))
    for home in _homes():
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    for user in _users():
        text = re.sub(rf"(?<=[/\\]){re.escape(user)}(?![\w.-])", "USER", text)
    return text


def _homes() -> list[str]:
    """The home directory as it is named and as it is stored; none for users without one."""
    home = os.path.expanduser("~")
    return [path for path in (os.path.realpath(home), home) if os.path.isabs(path) and os.path.dirname(path) != path]


def _users() -> set[str]:
    named = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")}
    return {*named, os.path.basename(os.path.expanduser("~"))} - {"", "~"}
