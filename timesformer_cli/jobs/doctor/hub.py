"""The Hugging Face Hub: its cache, the token, and whether it answers."""

import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from timesformer_cli.__about__ import DEFAULT_MODEL
from timesformer_cli.jobs.doctor.findings import Check, Finding, Status

# Free space, in bytes, below which the default model may not fit, with what a download needs meanwhile.
_ROOM = 10**9

_GB = 1e9

# In the order in which huggingface_hub takes them.
_TOKENS = ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

_ELSEWHERE = "set HF_HOME to a folder that can be written"


def checks(*, offline: bool) -> Iterator[Check]:
    yield Check(group="hub", name="cache", find=partial(_cache, offline=offline))
    yield Check(group="hub", name="models", find=partial(_models, offline=offline))
    yield Check(group="hub", name="token", find=_token)
    yield Check(group="hub", name="connection", find=partial(_connection, offline=offline))


def _cache(*, offline: bool) -> list[Finding]:
    from timesformer_cli.checkpoints.hub import cache_folder

    folder = cache_folder()
    status: Status = "warning" if offline else "problem"
    if folder is None:
        message, remedy = "there is no home directory for it, so nothing can be downloaded", _ELSEWHERE
        return [Finding(group="hub", name="cache", status=status, message=message, remedy=remedy, facts={"path": None})]
    # It is made when it is first needed.
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free, writable = shutil.disk_usage(place).free, os.access(place, os.W_OK | os.X_OK)
    facts = {"path": str(folder), "exists": folder.exists(), "writable": writable, "bytes_free": free}
    message, remedy = f"{folder}, {free / _GB:.1f} GB free", ""
    if not writable:
        message, remedy = f"{folder}: cannot be written, so nothing can be downloaded", _ELSEWHERE
    elif free < _ROOM:
        status, remedy = "warning", "free space there, or set HF_HOME to a folder on a larger disk"
    else:
        status = "ok"
    return [Finding(group="hub", name="cache", status=status, message=message, remedy=remedy, facts=facts)]


def _models(*, offline: bool) -> list[Finding]:
    """The published models that are complete in the cache."""
    from timesformer_cli.checkpoints import zoo
    from timesformer_cli.checkpoints.hub import find_cached

    cached = [entry.name for entry in zoo.ZOO.values() if entry.repo and find_cached(entry.repo, entry.revision)]
    facts = {"cached": cached}
    message = f"in the cache: {', '.join(cached)}" if cached else "none in the cache"
    if offline and DEFAULT_MODEL not in cached:
        remedy = f"run `timesformer models download {DEFAULT_MODEL}` with a network, or use `model=camera-motion`"
        message += f"; not {DEFAULT_MODEL}, the default"
        return [Finding(group="hub", name="models", status="warning", message=message, remedy=remedy, facts=facts)]
    return [Finding(group="hub", name="models", message=f"{message}; camera-motion is bundled", facts=facts)]


def _token() -> list[Finding]:
    """Whether there is one, and from where; it is not read."""
    from huggingface_hub import constants

    variable = next((name for name in _TOKENS if os.environ.get(name, "").strip()), None)
    path = Path(os.path.expanduser(constants.HF_TOKEN_PATH))
    status: Status = "ok"
    message, remedy, source = "none; only private and gated models need one", "", None
    if variable is not None:
        message, source = f"from the variable {variable}", variable
    elif path.is_file():
        message, source = f"from {path}", str(path)
        if not os.access(path, os.R_OK):
            status, message = "warning", f"{path} cannot be read"
            remedy = "make it readable, or set HF_TOKEN"
    facts = {"exists": source is not None, "source": source}
    return [Finding(group="hub", name="token", status=status, message=message, remedy=remedy, facts=facts)]


def _connection(*, offline: bool) -> list[Finding]:
    """Whether the Hub answers for the default model, within the seconds that any request may take."""
    from huggingface_hub import constants

    from timesformer_cli.checkpoints import hub, zoo

    facts = {"endpoint": constants.ENDPOINT, "asked": False, "seconds": None}
    if offline or constants.HF_HUB_OFFLINE:
        why = "`offline`" if offline else "HF_HUB_OFFLINE"
        return [Finding(group="hub", name="connection", message=f"not asked, because of {why}", facts=facts)]
    repo = zoo.ZOO[DEFAULT_MODEL].repo
    assert repo is not None
    begin = time.perf_counter()
    obstacle = hub.obstacle(repo)
    seconds = time.perf_counter() - begin
    facts |= {"asked": True, "seconds": round(seconds, 3)}
    if obstacle is None:
        message = f"{constants.ENDPOINT} answers ({seconds:.1f} s)"
        return [Finding(group="hub", name="connection", message=message, facts=facts)]
    reason, advice = obstacle
    message = f"{constants.ENDPOINT} does not give {repo}: {reason}"
    remedy = f"{advice}; without a network, use `offline`"
    return [Finding(group="hub", name="connection", status="problem", message=message, remedy=remedy, facts=facts)]
