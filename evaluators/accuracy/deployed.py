"""Accuracy of the file that is deployed, beside that of the network it was made from.

The file is computed by its runtime on this machine, also where the target is another device, and in a fresh process,
since a runtime may crash.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from evaluators import probe
from evaluators.accuracy.request import DeployedRequest
from evaluators.errors import LatencyError
from evaluators.evaluation import DeployedAccuracy, Failure, failure_from
from evaluators.host_lock import training
from evaluators.latency import fingerprint_of, identify
from evaluators.target import get_runtime

Progress = Callable[[int], None]


def validate_deployed(request: DeployedRequest, progress: Progress | None = None) -> DeployedAccuracy:
    """Validate a trial's exported file and its PyTorch network on all validation images.

    Args:
        request: What.
        progress: Is given the number of images so far.

    Raises:
        LatencyError: `unsupported` if the runtime is not here or computes no outputs; whatever else went wrong.
    """
    target = replace(request.target, ssh=None, port=None, ssh_config=None, ray=False, python=None)
    try:
        identity = identify(target)
    except LatencyError as error:
        if error.cause != "unsupported":
            raise
        raise LatencyError("unsupported", f"{target.runtime} cannot be used here: {error}", error.detail) from error
    file_format = get_runtime(target.runtime).model_format(target.precision, identity)
    request = replace(request, target=target)
    scores = _in_fresh_process(request, file_format, progress or (lambda images: None))
    return DeployedAccuracy(
        target=target.name,
        fingerprint=fingerprint_of(identity),
        precision=target.precision,
        epochs=request.epochs,
        **scores,
    )


def validate_finalist(request: DeployedRequest) -> Iterator[DeployedAccuracy | Failure]:
    """Yield what `validate_deployed` returns, or what went wrong; nothing where the target's runtime is not here."""
    try:
        yield validate_deployed(request)
    except LatencyError as error:
        if error.cause != "unsupported":
            yield Failure(error.cause, str(error), error.detail)
    except Exception as error:
        yield failure_from(error)


def _in_fresh_process(request: DeployedRequest, file_format: str, progress: Progress) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(request, file_format, send), daemon=True)
    process.start()
    send.close()
    try:
        while True:
            match receive.recv():
                case "images", int(images):
                    progress(images)
                case "scores", dict(scores):
                    return scores
                case "failure", (str(cause), str(message), str(detail)):
                    raise LatencyError.said(cause, message, detail)
    except EOFError:
        process.join()
        status = process.exitcode or 0
        if status == -signal.SIGKILL:  # nobody here sent it: the kernel, for want of memory
            raise LatencyError("oom", "the process was killed, as the system does when memory runs out") from None
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        raise LatencyError("crash", f"the process that computed it ended {how}") from None
    finally:
        process.terminate()
        process.join()


def _child(request: DeployedRequest, file_format: str, send: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    os.dup2(2, 1)  # libraries print, and standard output belongs to the result
    try:
        from evaluators.accuracy.validation import validate_both

        with training() as slot, tempfile.TemporaryDirectory(prefix="nas-yolo-") as scratch:
            scores = validate_both(request, file_format, slot, Path(scratch), lambda done: send.send(("images", done)))
        send.send(("scores", scores))
    except LatencyError as error:
        send.send(("failure", (error.cause, str(error), error.detail)))
    except Exception as error:
        found = probe.failure(error)
        send.send(("failure", (found["cause"], found["message"], traceback.format_exc())))
