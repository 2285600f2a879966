"""Checks in a fresh process: a library that ends its process, or never returns, costs one line of the report."""

import os
import pickle
import signal
import subprocess
import sys

from timesformer_cli.jobs.doctor.findings import Check, Finding, remedy_of, shortened
from timesformer_cli.limits import check_current_folder, starting

# Imports from a slow disk take minutes.
_SECONDS = 180.0


def carry_out(check: Check, seconds: float = _SECONDS) -> list[Finding]:
    """What the check finds in a fresh process; a problem if that dies, or is not done after `seconds`."""
    # The same modules as here, whatever the current folder holds.
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
    try:
        check_current_folder()
        with starting():
            done = subprocess.run(
                [sys.executable, "-c", code], input=pickle.dumps(check), capture_output=True, timeout=seconds
            )
    except subprocess.TimeoutExpired:
        return [check.problem(f"not done within {seconds:g} seconds", check.remedy)]
    except Exception as error:
        return [check.failed(error)]
    if done.returncode:
        printed = done.stderr.decode(errors="replace").strip()
        last = f": {shortened(printed.splitlines()[-1])}" if printed else ""
        how = f"the process of this check died ({_how(done.returncode)}){last}"
        return [check.problem(how, remedy_of(printed) or check.remedy, printed)]
    findings: list[Finding] = pickle.loads(done.stdout)
    return findings


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve() -> None:
    """The process that `carry_out` starts."""
    output = os.dup(1)
    os.dup2(2, 1)  # libraries may print
    check: Check = pickle.load(sys.stdin.buffer)
    findings = check.carry_out()
    with open(output, "wb") as file:
        pickle.dump(findings, file)
