"""Another machine, over the system's OpenSSH. It needs a Python there, and nothing that listens but its SSH server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluators.connections._exchange import BOOT, exchange
from evaluators.errors import LatencyError
from evaluators.target import Target

CONNECT_S = 10
ALIVE_S, ALIVE_COUNT = 10, 3  # a link that is silent for so long, so many times, is cut
PERSIST_S = 60  # how long a connection waits for the next job
RETRY_S = 10.0  # no attempt to connect begins later than this after the first
PAUSES_S = (0.5, 1.0, 2.0)  # between attempts
SOCKETS = Path(f"/tmp/nas-yolo-ssh-{os.getuid()}")  # short: the path of a socket has a hundred bytes

# What the client says when it could not connect, and may at another time.
MAY_PASS = re.compile(
    r"^ssh: connect to host|^kex_exchange_identification|^ssh_exchange_identification|Temporary failure|"
    r"^mux_client_request_session",
    re.M,
)
# What the client says, and what to tell the user; the first that is found counts.
REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is another one than before. Only if you know why (it was set up anew): {forget}, "
        "then {login} once by hand",
    ),
    ("Host key verification failed", "its host key is not known here; {login} once by hand, and compare the key"),
    ("Permission denied", "it lets none of your keys in; {copy}, and have a key with a passphrase in ssh-agent"),
    ("Could not resolve hostname", "there is no host of that name; check ssh: of the target"),
    ("Connection refused", "no SSH server listens there; check the port, and that the device is up"),
    ("No route to host|Network is unreachable|timed out", "it does not answer; check that it is up, and the network"),
)


def perform(target: Target, job: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """One job; files that the device has not got are sent.

    Connecting is tried again where that may help; a job that has begun is not.

    Raises:
        LatencyError: If there is no result.
    """
    if not shutil.which("ssh"):
        raise LatencyError("unreachable", "there is no program ssh on this machine; install OpenSSH's client")
    _make_private(SOCKETS)
    if files:
        job = job | {"files": {name: _about(path) for name, path in files.items()}}
    started = time.monotonic()
    for pause_s in (*PAUSES_S, None):
        try:
            return exchange(_command(target), job, files, lambda status, said: _explain(target, status, said))
        except LatencyError as error:
            late = time.monotonic() - started > RETRY_S
            if pause_s is None or late or error.cause != "unreachable" or not MAY_PASS.search(error.detail):
                raise
        time.sleep(pause_s)
    raise AssertionError


def _command(target: Target) -> list[str]:
    options = {
        "BatchMode": "yes",  # nobody is there to answer questions
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": CONNECT_S,
        "ServerAliveInterval": ALIVE_S,
        "ServerAliveCountMax": ALIVE_COUNT,
        "ControlMaster": "auto",  # the next job needs no handshake
        "ControlPath": SOCKETS / "%C",
        "ControlPersist": PERSIST_S,
        "ClearAllForwardings": "yes",
        "RemoteCommand": "none",  # whatever the user's configuration says
        "LogLevel": "INFO",
    }
    command = ["ssh", "-T", "-a", "-x"]  # no terminal, no agent, no X11 there
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    if target.port:
        command += ["-p", str(target.port)]
    if target.ssh_config:
        command += ["-F", str(Path(target.ssh_config).expanduser())]
    assert target.ssh
    return [*command, "--", target.ssh, f"{_quoted(target.python or 'python3')} -I -c {shlex.quote(BOOT)}"]


def _quoted(python: str) -> str:
    """For the device's shell, which is to find the home folder that `~` stands for."""
    home, slash, rest = python.partition("/")
    if slash and re.fullmatch(r"~[\w.-]*", home, re.ASCII):
        return home + slash + shlex.quote(rest)
    return shlex.quote(python)


def _about(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def _make_private(folder: Path) -> None:
    """Have a folder that nobody else can enter: whoever can reach a connection's socket can use it.

    Raises:
        LatencyError: If it belongs to somebody else.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise LatencyError("unreachable", f"{folder} must be a folder of yours that others cannot enter; remove it")


def _explain(target: Target, status: int, said: str) -> LatencyError:
    """Why there was no answer; the client's own exit status is 255."""
    last = (said.splitlines() or ["it said nothing"])[-1][:200]
    if status == 255 or status < 0:
        config = f"-F {target.ssh_config} " if target.ssh_config else ""
        port = f"-p {target.port} " if target.port else ""
        host = str(target.ssh).rpartition("@")[2]
        advice = {
            "login": f"ssh {config}{port}{target.ssh}",
            "copy": f"ssh-copy-id {config}{port}{target.ssh}",
            "forget": f"ssh-keygen -R {f'[{host}]:{target.port}' if target.port not in (None, 22) else host}",
        }
        found = (text.format(**advice) for pattern, text in REASONS if re.search(pattern, said))
        return LatencyError("unreachable", f"{target.ssh}: {next(found, f'the connection was lost: {last}')}", said)
    if status in (126, 127):
        message = f"{target.ssh}: there is no {target.python or 'python3'}; give the target's python: a path there"
        return LatencyError("unreachable", message, said)
    if "SyntaxError" in last:
        return LatencyError("unreachable", f"{target.ssh}: its Python is too old; 3.8 or later is needed", said)
    return LatencyError("crash", f"the probe on {target.ssh} ended with status {status}: {last}", said)
