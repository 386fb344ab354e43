"""The conversation with a probe: program and job in, lines of JSON out, and a time limit on each step."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluators import probe
from evaluators.errors import LatencyError, printable

PROBE = Path(probe.__file__)
# Reads so many bytes of program, then runs it; the job follows on the same input. Constant text: no user's words.
BOOT = (
    "import sys;b=sys.stdin.buffer;g={'__name__':'probe','__file__':'probe.py'};"
    "exec(compile(b.read(int(b.readline())),'probe.py','exec'),g);sys.exit(g['serve']())"
)
LINE_BYTES = 2**20
DEPTH = 8  # of what a device says
START_S = 45.0  # until the device has started Python and answered
SILENCE_S = 120.0  # without progress while files are sent
SLACK_S = 20.0  # by which a device may be late beyond its own limits before the connection is given up
ERROR_BYTES = 4096
LAST_WORDS_S = 5.0

Explain = Callable[[int, str], LatencyError]


def exchange(
    command: Sequence[str], job: dict[str, Any], files: Mapping[str, Path], explain: Explain
) -> dict[str, Any]:
    """Start a Python, on whatever machine, that runs the probe, and do one job.

    A login may print before that Python does. So the job has a marker, drawn anew, and answers begin below its line.

    Args:
        command: Arguments that start `python3 -c BOOT` there.
        job: For the probe.
        files: To be sent if it has not got them.
        explain: Makes an error of a process that ended without an answer: exit status and the end of what it said.

    Raises:
        LatencyError: If there is no result.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise LatencyError("unreachable", f"{command[0]} cannot be started: {error.strerror}") from error
    try:
        talk = _Talk(process)
        try:
            return _converse(talk, job | {"marker": secrets.token_hex(16)}, files)
        except EOFError as error:
            raise explain(*talk.last_words()) from error
    finally:
        _end(process)


def _converse(talk: _Talk, job: dict[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    program = PROBE.read_bytes()
    talk.start(b"%d\n" % len(program) + program + json.dumps(job).encode() + b"\n", job["marker"], START_S)
    limit, phase = START_S, "starting"
    phases = ["waiting", "loading", "measuring"]  # each at most once: so the time that a device can take is bounded
    while True:
        event = talk.event(limit, phase)
        match event:
            case {"event": "missing", "files": [*names]} if phase == "starting":
                for name in names:
                    if not isinstance(name, str) or name not in files or names.count(name) > 1:
                        raise LatencyError(
                            "garbage", f"the device asked for a file {str(name)[:50]!r} that it was not offered"
                        )
                    talk.send(files[name].read_bytes(), SILENCE_S)
                limit, phase = START_S, "taking files"
            case {"event": "phase", "phase": str(next_phase)} if next_phase in phases:
                phase = next_phase
                del phases[: phases.index(phase) + 1]
                limit = job["limits"][phase] + SLACK_S + (probe.BUSY_LIMIT_S if phase == "waiting" else 0)
            case {"event": "result", "result": dict(result)}:
                return result
            case {"event": "failure", "cause": str(cause), "message": str(message), "detail": str(detail)}:
                raise LatencyError.said(cause, message, detail)
            case _:
                raise LatencyError("garbage", f"the device said something unknown: {str(event)[:200]}")


class _Talk:
    """Both ends of a process, with deadlines."""

    def __init__(self, process: subprocess.Popen[bytes]):
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._process = process
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._errors = [process.stderr.fileno()]
        os.set_blocking(self._in, False)
        self._text = self._said = self._skipped = b""

    def start(self, program: bytes, marker: str, limit_s: float) -> None:
        """Send the program, and skip all that the device says before the marker: it may speak while it listens.

        Time counts while nothing is taken, then until the marker. The end of what is skipped is kept, in case that
        nothing follows.
        """
        line, view = f"\n{marker}\n".encode(), memoryview(program)
        deadline = time.monotonic() + limit_s
        while line not in self._text:
            left = deadline - time.monotonic()
            readable, writable = self._wait(left, [self._in] if view else []) if left > 0 else ([], [])
            if not readable and not writable:
                what = "took no data for" if view else "did not answer within"
                raise LatencyError("unreachable", f"the device {what} {limit_s:g} s (starting)")
            if readable:
                more = os.read(self._out, 2**16)
                if not more:
                    self._skipped = self._text[-ERROR_BYTES:]
                    raise EOFError
                self._text = self._text[-ERROR_BYTES:] + more
            if writable:
                view, deadline = self._give(view), time.monotonic() + limit_s
        self._text = self._text.partition(line)[2]

    def send(self, data: bytes, silence_s: float) -> None:
        """All of it; time counts while nothing is taken."""
        view = memoryview(data)
        while view:
            # If the other side speaks instead of listening, it has given up: what it says is read next.
            readable, writable = self._wait(silence_s, [self._in])
            if readable:
                return
            if not writable:
                raise LatencyError("unreachable", f"the device took no data for {silence_s:g} s")
            view = self._give(view)

    def _give(self, view: memoryview) -> memoryview:
        """What is left to send; nothing, if nobody reads it any more."""
        try:
            return view[os.write(self._in, view[: 2**16]) :]
        except BlockingIOError:
            return view
        except BrokenPipeError:
            return view[:0]

    def event(self, limit_s: float, phase: str) -> Any:
        """The next line, parsed."""
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._text:
            if len(self._text) > LINE_BYTES:
                raise LatencyError("garbage", "the device said more than a megabyte without a line end")
            left = deadline - time.monotonic()
            if left <= 0 or not self._wait(left)[0]:
                away = phase in ("starting", "taking files")
                raise LatencyError(
                    "unreachable" if away else "timeout", f"the device did not answer within {limit_s:g} s ({phase})"
                )
            more = os.read(self._out, 2**16)
            if not more:
                if self._text:
                    raise LatencyError.garbage(self._text)
                raise EOFError
            self._text += more
        line, _, self._text = self._text.partition(b"\n")
        try:
            return _plain(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise LatencyError.garbage(line) from error

    def last_words(self) -> tuple[int, str]:
        """Exit status of a process that says no more, -1 if it does not end, and the end of its error output.

        Of one without, the end of what it said in place of answers: some logins are refused there.
        """
        deadline = time.monotonic() + LAST_WORDS_S
        while (status := self._process.poll()) is None and time.monotonic() < deadline:
            self._wait(0.05, listen=False)
        self._wait(0, listen=False)
        said = self._said.strip() or self._skipped
        return -1 if status is None else status, said.decode(errors="replace").strip()

    def _wait(self, limit_s: float, writing: Sequence[int] = (), listen: bool = True) -> tuple[list[int], list[int]]:
        """Until there is something to read or to be written to; error output is taken meanwhile."""
        deadline = time.monotonic() + limit_s
        while True:
            heard = [self._out] if listen else []
            left = max(deadline - time.monotonic(), 0)
            readable, writable, _ = select.select([*heard, *self._errors], writing, [], left)
            for descriptor in set(self._errors) & set(readable):
                more = os.read(descriptor, 2**16)
                self._said = (self._said + more)[-ERROR_BYTES:]
                if not more:
                    self._errors.clear()
            readable = [descriptor for descriptor in readable if descriptor in heard]
            if readable or writable or time.monotonic() >= deadline:
                return readable, writable


def _plain(value: Any, depth: int = DEPTH) -> Any:
    """A value that a device said, fit for a terminal and a database.

    Raises:
        ValueError: If it is nested too deeply, or has numbers that are none.
    """
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    if not isinstance(value, dict | list):
        return value
    if not depth:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [_plain(item, depth - 1) for item in value]
    return {printable(key): _plain(item, depth - 1) for key, item in value.items()}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, on which a probe ends by itself; kill what does not."""
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream
        with contextlib.suppress(OSError):
            stream.close()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
