"""What a device says, byte by byte: a program of the system says it in place of a probe."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evaluators.connections import _exchange
from evaluators.errors import LatencyError

MARKER = "0123456789abcdef0123456789abcdef"
ANSWER = {"event": "result", "result": {"machine": "this one"}}
LIMITS = {"limits": {"waiting": 1.0, "loading": 1.0, "measuring": 1.0}}

lines = st.one_of(
    st.binary(),
    st.text().map(str.encode),
    st.sampled_from([b"\n", b"{", b"}", MARKER.encode(), MARKER[:-1].encode(), b"\n" + MARKER.encode()]),
    st.sampled_from([{"event": "result", "result": {}}, {"event": "phase", "phase": "loading"}, [], None]).map(
        lambda said: json.dumps(said).encode() + b"\n"
    ),
    st.integers(0, 2**18).map(lambda size: b"x" * size),
)
greetings = st.lists(lines).map(b"".join).filter(lambda text: f"\n{MARKER}\n".encode() not in text + b"\n")
quick = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def same_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exchange.secrets, "token_hex", lambda size: MARKER)


def hear(said: bytes) -> dict[str, Any]:
    """The result of a job on a device that says this."""

    def explain(status: int, words: str) -> LatencyError:
        return LatencyError("crash", f"status {status}", words)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said"
        file.write_bytes(said)
        return _exchange.exchange(["cat", str(file)], LIMITS, {}, explain)


@quick
@given(greetings)
@example(b"")
@example(b"Welcome!")
@example(b"Welcome!\n")
@example(b"x" * (2**16 - 10))  # the marker comes in two pieces
@pytest.mark.usefixtures("same_marker")
def test_whatever_a_login_prints_before_an_answer_the_answer_is_the_same(greeting: bytes) -> None:
    assert hear(greeting + f"\n{MARKER}\n{json.dumps(ANSWER)}\n".encode()) == ANSWER["result"]


@quick
@given(greetings)
@pytest.mark.usefixtures("same_marker")
def test_whatever_a_login_prints_it_is_no_answer(greeting: bytes) -> None:
    with pytest.raises(LatencyError, match=r"^status 0$") as caught:
        hear(greeting)
    assert len(caught.value.detail) <= _exchange.ERROR_BYTES


def test_each_job_has_a_marker_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    start = _exchange._Talk.start

    def note(talk: _exchange._Talk, program: bytes, marker: str, limit_s: float) -> None:
        sent.append(marker)
        assert json.loads(program.splitlines()[-1])["marker"] == marker
        start(talk, program, marker, limit_s)

    monkeypatch.setattr(_exchange._Talk, "start", note)
    for _ in range(2):
        with pytest.raises(LatencyError):
            hear(b"")
    assert len(set(sent)) == 2
    assert all(len(marker) == 32 for marker in sent)
