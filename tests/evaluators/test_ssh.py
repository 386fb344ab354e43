from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaluators import latency, probe, runtimes
from evaluators.connections import _exchange, ssh
from evaluators.errors import LatencyError
from evaluators.latency import fingerprint, identify, measure_latency, time_files
from evaluators.target import Target
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from conftest import SshServer
    from ultralytics.nn.tasks import DetectionModel

Models = Callable[..., dict[str, Path]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the files that the device asked for, one list per job."""
    asked = []
    event = _exchange._Talk.event

    def listen(talk: _exchange._Talk, limit_s: float, phase: str) -> Any:
        said = event(talk, limit_s, phase)
        if said["event"] == "missing":
            asked.append(said["files"])
        return said

    monkeypatch.setattr(_exchange._Talk, "event", listen)
    return asked


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "PAUSES_S", (0.01, 0.01))


def unreachable(target: Target) -> str:
    with pytest.raises(LatencyError) as caught:
        identify(target)
    assert caught.value.cause == "unreachable"
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("change_probe")
def test_a_network_is_measured_over_ssh(ssh_server: SshServer, small_detector: DetectionModel, tmp_path: Path) -> None:
    target = ssh_server.target
    known = latency.Calibration(fingerprint(target), ImageSize(32, 32), reference_ms=8.0, spread=0.0)
    measured = list(measure_latency(small_detector, target, known, tmp_path))
    assert measured[-1].quality == "good"
    assert (measured[-1].target, measured[-1].fingerprint) == ("device", known.fingerprint)
    assert 0 < measured[-1].latency_ms == measured[-1].ratio * 8.0


def test_the_same_machine_with_the_same_settings_has_the_same_fingerprint_over_ssh(ssh_server: SshServer) -> None:
    here = Target("here")
    assert identify(ssh_server.target) == identify(here)
    assert fingerprint(ssh_server.target) == fingerprint(here)
    assert fingerprint(replace(ssh_server.target, threads=2)) != fingerprint(here)


@pytest.mark.usefixtures("change_probe")
def test_a_model_is_sent_once(ssh_server: SshServer, tiny_model: Models, sent: list[list[str]]) -> None:
    first, second, reference = tiny_model("first"), tiny_model("second"), tiny_model("reference")
    for candidate in (first, first, second, reference):
        time_files(ssh_server.target, candidate, reference)
    assert sent == [["model.onnx", "reference.onnx"], [], ["model.onnx"], []]
    assert len(list(ssh_server.cache.iterdir())) == 3


@pytest.mark.usefixtures("change_probe")
def test_the_same_file_under_two_names_is_sent_once(
    ssh_server: SshServer, tiny_model: Models, sent: list[list[str]]
) -> None:
    model = tiny_model()
    time_files(ssh_server.target, model, model)
    assert sent == [["model.onnx"]]


def test_the_least_recently_used_models_make_room(
    ssh_server: SshServer, tiny_model: Models, change_probe: Callable[[str], None], sent: list[list[str]]
) -> None:
    a, b, c = (tiny_model(name, size=10_000) for name in "abc")
    change_probe("QUOTA_BYTES = 100_000")  # room for two
    for candidate, reference in ((a, a), (b, b), (a, a), (c, c), (a, a), (b, b)):
        time_files(ssh_server.target, candidate, reference)
    assert sent == [["model.onnx"], ["model.onnx"], [], ["model.onnx"], [], ["model.onnx"]]
    assert len(list(ssh_server.cache.iterdir())) == 2


def test_models_are_kept_where_nobody_else_can_read_them(
    ssh_server: SshServer, change_probe: Callable[[str], None], tiny_model: Models
) -> None:
    change_probe("os.umask(0)")
    model = tiny_model()
    time_files(ssh_server.target, model, model)
    assert ssh_server.cache.stat().st_mode & 0o077 == 0


def test_a_second_job_takes_the_same_connection(ssh_server: SshServer) -> None:
    identify(ssh_server.target)
    started = time.monotonic()
    identify(ssh_server.target)
    assert time.monotonic() - started < 5
    assert ssh_server.log.read_text().count("Accepted publickey") == 1
    ssh_server.cut()
    identify(ssh_server.target)
    assert ssh_server.log.read_text().count("Accepted publickey") == 2


def test_connections_cannot_be_used_by_others(
    ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identify(ssh_server.target)
    ssh.SOCKETS.chmod(0o755)
    assert "that others cannot enter" in unreachable(ssh_server.target)
    link = tmp_path / "link"
    ssh.SOCKETS.chmod(0o700)
    link.symlink_to(ssh.SOCKETS)
    monkeypatch.setattr(ssh, "SOCKETS", link)
    assert "that others cannot enter" in unreachable(ssh_server.target)


def test_an_unknown_host_key_is_not_accepted(ssh_server: SshServer) -> None:
    ssh_server.trust()
    said = unreachable(ssh_server.target)
    assert "its host key is not known here" in said
    assert f"ssh -F {ssh_server.folder}/ssh_config -p {ssh_server.port} " in said
    assert (ssh_server.folder / "known_hosts").read_text() == ""


def test_another_host_key_than_before_is_not_accepted(ssh_server: SshServer) -> None:
    ssh_server.make_key("other_key")
    ssh_server.trust("other_key")
    said = unreachable(ssh_server.target)
    assert "its host key is another one than before" in said
    assert f"ssh-keygen -R [127.0.0.1]:{ssh_server.port}" in said


def test_a_user_who_is_not_let_in(ssh_server: SshServer) -> None:
    (ssh_server.folder / "user_key.pub").write_text("")
    assert "it lets none of your keys in; ssh-copy-id" in unreachable(ssh_server.target)
    deadline = time.monotonic() + 10
    while not (attempts := ssh_server.log.read_text().count("Connection closed by authenticating user")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert attempts == 1


@pytest.mark.usefixtures("soon")
def test_nobody_listens(ssh_server: SshServer) -> None:
    ssh_server.stop()
    assert "no SSH server listens there" in unreachable(ssh_server.target)


@pytest.mark.usefixtures("soon")
def test_a_host_that_does_not_exist(ssh_server: SshServer) -> None:
    nowhere = replace(ssh_server.target, ssh="nobody@no-such-host.invalid")
    assert "there is no host of that name" in unreachable(nowhere)


def test_a_device_that_is_back_soon_is_waited_for(ssh_server: SshServer) -> None:
    ssh_server.stop()
    back = threading.Timer(0.3, ssh_server.start)
    back.start()
    assert identify(ssh_server.target)["runtime"] == "onnxruntime"
    back.join()


def test_attempts_end(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh_server.stop()
    monkeypatch.setattr(ssh, "PAUSES_S", (0.01, 0.3, 60.0))
    monkeypatch.setattr(ssh, "RETRY_S", 0.2)
    started = time.monotonic()
    unreachable(ssh_server.target)
    assert time.monotonic() - started < 30


def test_no_python_on_the_device(ssh_server: SshServer) -> None:
    said = unreachable(replace(ssh_server.target, python="/no/such/python3"))
    assert "there is no /no/such/python3; give the target's python" in said


def test_the_home_folder_in_the_path_of_python_is_that_on_the_device(ssh_server: SshServer) -> None:
    assert "there is no ~/no-such-venv/bin/python" in unreachable(
        replace(ssh_server.target, python="~/no-such-venv/bin/python")
    )
    relative = Path(ssh_server.target.python or "").relative_to("/")
    up = "/".join([".."] * len(Path.home().parts[1:]))
    assert identify(replace(ssh_server.target, python=f"~/{up}/{relative}"))["runtime"] == "onnxruntime"


def test_without_an_ssh_client(ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "install OpenSSH's client" in unreachable(ssh_server.target)


def log_in_by(server: SshServer, command: str) -> None:
    """Have each login begin so."""
    with open(server.folder / "sshd_config", "a") as config:
        config.write(f"ForceCommand {command}\n")
    server.stop()
    server.start()


GREETINGS = {
    "a line": "Welcome to device\n",
    "no line end": "Last login: Mon Nov 23 00:37:40 2026",
    "several lines": "\n  System information\n\n  Load: 0.1   {disk: 3%}\n\n",
    "an answer": '{"event": "result", "result": {"machine": "another"}}\n{"event": "failure", "cause": "crash"}\n',
    "half an answer": '{"event": "result", "result": {',
    "other letters": "Grüße\r\n\x1b[31m\x00",
    "a picture": "#" * 300_000,  # more than the pipes hold, while the program is still sent
}


def test_what_a_login_prints_before_the_answers_does_not_count(ssh_server: SshServer, tmp_path: Path) -> None:
    quiet = identify(ssh_server.target)
    greeting = tmp_path / "greeting"
    log_in_by(ssh_server, f'cat {greeting}; eval "$SSH_ORIGINAL_COMMAND"')
    for name, text in GREETINGS.items():
        greeting.write_text(text)
        assert identify(ssh_server.target) == quiet, name


@pytest.mark.usefixtures("change_probe")
def test_a_login_that_prints_takes_models_too(ssh_server: SshServer, tiny_model: Models, sent: list[list[str]]) -> None:
    log_in_by(ssh_server, 'echo Welcome; eval "$SSH_ORIGINAL_COMMAND"')
    model = tiny_model()
    assert time_files(ssh_server.target, model, model).samples
    assert sent == [["model.onnx"]]


def test_a_login_that_prints_and_ends_is_told(ssh_server: SshServer) -> None:
    log_in_by(ssh_server, "echo Welcome; echo This account is not available.; exit 1")
    with pytest.raises(LatencyError, match=r"ended with status 1: This account is not available\.$") as caught:
        identify(ssh_server.target)
    assert caught.value.cause == "crash"
    assert "Welcome" in caught.value.detail


def test_a_login_that_prints_where_there_is_no_python(ssh_server: SshServer) -> None:
    log_in_by(ssh_server, 'echo Welcome; eval "$SSH_ORIGINAL_COMMAND"')
    said = unreachable(replace(ssh_server.target, python="/no/such/python3"))
    assert "there is no /no/such/python3; give the target's python" in said


def test_a_login_that_prints_for_ever_is_given_up(ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in_by(ssh_server, "yes")
    monkeypatch.setattr(_exchange, "START_S", 1.0)
    assert "1 s (starting)" in unreachable(ssh_server.target)


def test_what_runs_on_the_device_is_written_for_python_3_8() -> None:
    files = [Path(probe.__file__), *Path(runtimes.__file__).parent.glob("*.py")]
    assert len(files) > 2
    for file in files:
        ast.parse(file.read_text(), file.name, feature_version=(3, 8))
    ast.parse(_exchange.BOOT, feature_version=(3, 8))
