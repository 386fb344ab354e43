"""What goes wrong with devices, provoked: wherever possible with real processes, signals, links and disks."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from evaluators import latency, probe
from evaluators.connections import connection, ssh
from evaluators.errors import LatencyError
from evaluators.evaluation import Latency, combine
from evaluators.latency import Calibration, check_same, fingerprint_of, measure_latency, time_files
from evaluators.target import Target
from search_spaces.image_size import ImageSize

if TYPE_CHECKING:
    from conftest import SshServer
    from ultralytics.nn.tasks import DetectionModel

LONG_S = 30.0  # what must happen, happens long before
CPU = Target("cpu")
KNOWN = Calibration("0123456789abcdef", ImageSize(32, 32), reference_ms=8.0, spread=0.0)

Script = Callable[..., None]
Models = Callable[..., dict[str, Path]]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@contextmanager
def fails(cause: str, match: str = ".") -> Iterator[None]:
    """There is no figure, for this cause, and the reason is one line."""
    with pytest.raises(LatencyError, match=match) as caught:
        yield
    assert (caught.value.cause, "\n" in str(caught.value)) == (cause, False)


@pytest.fixture
def model(tmp_path: Path) -> dict[str, Path]:
    """For runtimes that do not read it."""
    (tmp_path / "model.onnx").write_bytes(os.urandom(2**20))
    return {"model.onnx": tmp_path / "model.onnx"}


@pytest.fixture
def processes(tmp_path: Path) -> Callable[[], list[int]]:
    """Those that `LEAVES_A_TRACE` has noted."""

    def noted() -> list[int]:
        file = tmp_path / "processes"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    return noted


@pytest.fixture
def starts_a_process(tmp_path: Path) -> str:
    """Code of a runtime: it starts a program that does not end, and notes its own process and that one."""
    program = "subprocess.Popen(['sleep', '1000'])"
    return f'Path({str(tmp_path / "processes")!r}).write_text(f"{{os.getpid()}} {{{program}.pid}}")'


def alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # perhaps between two looks at it
        return False


def is_free(lock: Path) -> bool:
    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# 1. The device cannot be reached, or the link is cut


def test_1_a_device_that_cannot_be_reached(
    ssh_server: SshServer, model: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "PAUSES_S", (0.01,))
    ssh_server.stop()
    with fails("unreachable", "no SSH server listens"):
        time_files(ssh_server.target, model, model)


def test_1_the_link_is_cut_while_a_model_is_sent(
    ssh_server: SshServer, model: dict[str, Path], change_probe: Callable[[str], None], scripted_runtime: Script
) -> None:
    scripted_runtime()
    change_probe("""
        receive_at_once = receive_files

        def receive_files(job, source, say, folder):
            class Slow:
                def read(self, size):
                    time.sleep(0.05)
                    return source.read(min(size, 2**14))

            receive_at_once(job, Slow(), say, folder)
    """)

    def cut() -> None:
        wait_until(lambda: any(file.stat().st_size for file in ssh_server.cache.glob(".*")))
        ssh_server.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with fails("unreachable", "the connection was lost"):
        time_files(ssh_server.target, model, model)
    cutter.join()
    wait_until(lambda: not list(ssh_server.cache.iterdir()))  # half of it is not kept
    change_probe("receive_files = receive_at_once")
    assert time_files(ssh_server.target, model, model).samples


def test_1_the_link_is_cut_while_it_measures(
    ssh_server: SshServer,
    model: dict[str, Path],
    change_probe: Callable[[str], None],
    scripted_runtime: Script,
    starts_a_process: str,
    processes: Callable[[], list[int]],
    tmp_path: Path,
) -> None:
    scripted_runtime(load=starts_a_process, run="time.sleep(1000)")
    change_probe("")

    def cut() -> None:
        wait_until(lambda: len(processes()) == 2)
        assert not is_free(tmp_path / "locks" / "main")
        ssh_server.cut()

    with ThreadPoolExecutor() as pool:
        cutter = pool.submit(cut)
        with fails("unreachable", "the connection was lost"):
            time_files(ssh_server.target, model, model)
        cutter.result()
    wait_until(lambda: not any(alive(process) for process in processes()))
    wait_until(lambda: is_free(tmp_path / "locks" / "main") and is_free(tmp_path / "locks" / "gate"))


def test_1_whoever_asked_is_killed(
    model: dict[str, Path],
    change_probe: Callable[[str], None],
    scripted_runtime: Script,
    starts_a_process: str,
    processes: Callable[[], list[int]],
    tmp_path: Path,
) -> None:
    scripted_runtime(load=starts_a_process, run="time.sleep(1000)")
    change_probe("")
    asking = multiprocessing.get_context("fork").Process(target=time_files, args=(CPU, model, model))
    asking.start()
    wait_until(lambda: len(processes()) == 2)
    asking.kill()
    asking.join()
    wait_until(lambda: not any(alive(process) for process in processes()))
    wait_until(lambda: is_free(tmp_path / "locks" / "main"))


# 2. It hangs


@pytest.mark.parametrize(("phase", "hang"), [("loading", "load"), ("measuring", "run")])
@pytest.mark.usefixtures("change_probe")
def test_2_a_hang_is_ended_with_all_that_it_started(
    phase: str,
    hang: str,
    model: dict[str, Path],
    scripted_runtime: Script,
    starts_a_process: str,
    processes: Callable[[], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forever = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n".replace("\n", "; ") + "time.sleep(1000)"
    scripted_runtime(**{"load": starts_a_process} | {hang: f"{starts_a_process}; {forever}"})
    monkeypatch.setitem(latency.LIMITS_S, phase, 1.0)
    with fails("timeout", f"{phase} did not end within 1 s"):
        time_files(CPU, model, model)
    assert len(processes()) == 2
    wait_until(lambda: not any(alive(process) for process in processes()))
    assert is_free(tmp_path / "locks" / "main")


def test_2_a_device_that_says_nothing_any_more_is_given_up(
    scripted_probe: Script, model: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.connections._exchange.SLACK_S", 0.1)
    monkeypatch.setitem(latency.LIMITS_S, "loading", 0.1)
    scripted_probe("say(event='phase', phase='loading'); time.sleep(1000)")
    with fails("timeout", "did not answer within"):
        time_files(CPU, model, model)


def test_2_a_device_cannot_begin_again_and_again(scripted_probe: Script, model: dict[str, Path]) -> None:
    scripted_probe("while True: say(event='phase', phase='loading')")
    with fails("garbage", "something unknown"):
        time_files(CPU, model, model)


# 3. It crashes, or has not enough memory


@pytest.mark.parametrize(
    ("where", "fault", "cause", "said"),
    [
        ("load", "import ctypes; ctypes.string_at(0)", "crash", "SIGSEGV"),
        ("run", "import ctypes; ctypes.string_at(0)", "crash", "SIGSEGV"),
        ("run", "os.write(2, b'assertion failed\\n'); os.abort()", "crash", "SIGABRT: assertion failed"),
        ("load", "os._exit(3)", "crash", "status 3"),
        ("run", "raise RuntimeError('of some\\nkind')", "crash", "RuntimeError: of some kind"),
        ("load", "os.kill(os.getpid(), 9)", "oom", "when memory runs out"),
        ("run", "os.closerange(3, 100); time.sleep(1000)", "crash", "closed its connections but did not end"),
    ],
)
def test_3_a_crash_has_a_cause_and_the_next_measurement_works(
    where: str,
    fault: str,
    cause: str,
    said: str,
    model: dict[str, Path],
    change_probe: Script,
    scripted_runtime: Script,
) -> None:
    change_probe("END_S = 0.3")
    scripted_runtime(**{where: fault})
    with fails(cause, said):
        time_files(CPU, model, model)
    scripted_runtime()
    assert time_files(CPU, model, model).samples


def test_3_a_runtime_that_wants_too_much_memory(
    model: dict[str, Path], change_probe: Script, scripted_runtime: Script
) -> None:
    change_probe("""
        def _limit_memory():
            resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28))
    """)
    scripted_runtime(load="hog = [bytearray(2**24) for _ in range(1000)]")
    with fails("oom"):
        time_files(CPU, model, model)


@pytest.mark.usefixtures("change_probe")
def test_3_a_network_larger_than_the_memory(tiny_model: Models) -> None:
    small, large = tiny_model("small"), tiny_model("large", "Expand", size=1)
    import onnx
    from onnx import TensorProto, helper

    network = onnx.load(large["model.onnx"])
    shape = helper.make_tensor("shape", TensorProto.INT64, (4,), [2**12, 2**12, 512, 512])  # 16 TB
    network.graph.initializer.append(shape)
    network.graph.node[0].input[:] = ["weight", "shape"]
    onnx.save(network, large["model.onnx"])
    with fails("oom"):
        time_files(CPU, large, small)


# 4. The runtime lacks something


@pytest.mark.usefixtures("change_probe")
@pytest.mark.parametrize("domain", ["", "com.example"])
def test_4_an_operator_that_the_runtime_has_not(domain: str, tiny_model: Models) -> None:
    with fails("unsupported", "NoSuchOperator"):
        time_files(CPU, tiny_model("strange", "NoSuchOperator", domain), tiny_model())


@pytest.mark.usefixtures("change_probe")
def test_4_a_runtime_that_is_not_installed(model: dict[str, Path], scripted_runtime: Script) -> None:
    scripted_runtime(load="import no_such_runtime")
    with fails("unsupported", "No module named 'no_such_runtime'"):
        time_files(CPU, model, model)


# 5. It is throttled


@pytest.fixture
def made_up_sensors(tmp_path: Path, change_probe: Callable[[str], None]) -> Path:
    """A folder in the place of the system's, with a counter, a clock and a thermometer."""
    root = tmp_path / "root"
    for file, text in {
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2000000",
        "sys/class/thermal/thermal_zone0/temp": "45000",
        "sys/class/thermal/thermal_zone0/type": "cpu",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    change_probe(f"machine_state.__defaults__ = (Path({str(root)!r}),)")
    return root


COUNTER = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
CLOCK = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"


@pytest.fixture
def sessions(
    any_models: None, own_cache: Path, small_detector: DetectionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Iterator[Latency]]:
    monkeypatch.setattr(latency, "COOL_S", 0.0)
    monkeypatch.setattr(latency, "PAUSE_S", 0.0)
    monkeypatch.setattr(latency, "check_same", lambda *_: None)

    def measure(target: Target = CPU) -> Iterator[Latency]:
        return measure_latency(small_detector, target, KNOWN, tmp_path)

    return measure


def test_5_what_was_measured_while_throttled_is_invalid_and_repeated_but_never_counted(
    made_up_sensors: Path, scripted_runtime: Script, sessions: Callable[..., Iterator[Latency]]
) -> None:
    scripted_runtime(run=f"Path({str(made_up_sensors / COUNTER)!r}).write_text(str(time.monotonic()))")
    with fails("throttled", rf"slowed down in each session \({re.escape(COUNTER)}\); let it cool down"):
        list(sessions())
    measured = list(islice(sessions(), 1 + latency.RETRIES))
    assert [one.quality for one in measured] == ["invalid"] * (1 + latency.RETRIES)
    assert measured[0].conditions["throttled_by"] == [COUNTER]
    assert combine(measured) is None


def test_5_once_it_has_cooled_down_only_what_is_measured_then_counts(
    made_up_sensors: Path, scripted_runtime: Script, sessions: Callable[..., Iterator[Latency]]
) -> None:
    scripted_runtime(run=f"Path({str(made_up_sensors / COUNTER)!r}).write_text(str(time.monotonic()))")
    measuring = sessions()
    throttled = next(measuring)
    scripted_runtime()
    (good,) = list(measuring)
    assert (throttled.quality, good.quality) == ("invalid", "good")
    assert combine([throttled, good]) == good


@pytest.mark.parametrize(("exclusive", "quality"), [(True, "invalid"), (False, "good")])
def test_5_a_clock_that_falls_on_a_device_of_its_own(
    exclusive: bool,
    quality: str,
    made_up_sensors: Path,
    scripted_runtime: Script,
    change_probe: Script,
    sessions: Callable[..., Iterator[Latency]],
) -> None:
    change_probe("MIN_S = 0.3")
    clock = made_up_sensors / CLOCK
    clock.write_text("2000000")
    scripted_runtime(
        load="global started; started = time.monotonic()",
        run=f"time.monotonic() > started + 0.2 and Path({str(clock)!r}).write_text('1500000')",
    )
    assert next(sessions(Target("device", exclusive=exclusive))).quality == quality


def test_5_a_hot_device_is_not_measured(
    made_up_sensors: Path, scripted_runtime: Script, change_probe: Script, model: dict[str, Path]
) -> None:
    scripted_runtime()
    change_probe("BUSY_LIMIT_S = 0.1")
    (made_up_sensors / "sys/class/thermal/thermal_zone0/temp").write_text("97000")
    with fails("throttled", "97 °C and does not cool down"):
        time_files(CPU, model, model)


# 6. Others use the device


def test_6_a_busy_device_is_not_measured(
    model: dict[str, Path], change_probe: Script, scripted_runtime: Script
) -> None:
    scripted_runtime()
    change_probe("EXCLUSIVE_LOAD, LOOK_S, BUSY_LIMIT_S = 0.08, 0.2, 0.5")
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        with fails("device_busy", "other processes keep"):
            time_files(replace(CPU, exclusive=True), model, model)
    finally:
        busy.kill()
        busy.wait()


@pytest.mark.usefixtures("change_probe")
def test_6_two_measurements_never_overlap(model: dict[str, Path], scripted_runtime: Script, tmp_path: Path) -> None:
    note = f"open({str(tmp_path / 'times')!r}, 'a').write(f'{{os.getpid()}} {{time.monotonic()}}\\n')"
    scripted_runtime(load=note, run=note)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: time_files(CPU, model, model), range(3)))
    times: dict[str, list[float]] = {}
    for line in (tmp_path / "times").read_text().splitlines():
        process, moment = line.split()
        times.setdefault(process, []).append(float(moment))
    first, second, third = sorted((min(moments), max(moments)) for moments in times.values())
    assert first[0] < first[1] < second[0] < second[1] < third[0] < third[1]


def test_6_a_device_that_others_hold_for_too_long(
    model: dict[str, Path],
    change_probe: Script,
    scripted_runtime: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted_runtime()
    change_probe("")
    monkeypatch.setitem(latency.LIMITS_S, "waiting", 0.2)
    with probe.measuring(tmp_path / "locks"), fails("device_busy", "others measured or trained"):
        time_files(CPU, model, model)


# 7. It drifts


@pytest.mark.parametrize(("reference_ms", "flags"), [(8.2, []), (8.8, ["drifted"]), (9.6, ["off_calibration"])])
def test_7_a_reference_that_is_slower_than_it_was(
    reference_ms: float, flags: list[str], probe_that_prints: Script, sessions: Callable[..., Iterator[Latency]]
) -> None:
    probe_that_prints(reference_ms=reference_ms)
    measured = list(sessions())
    repeated = "off_calibration" in flags  # less than that is usual where others compute, too
    assert [one.flags for one in measured] == [tuple(flags)] * (1 + latency.RETRIES if repeated else 1)
    assert measured[-1].latency_ms == 1.5 * KNOWN.reference_ms  # the ratio does not know
    assert measured[-1].quality == ("noisy" if "off_calibration" in flags else "good")


def test_7_a_device_of_its_own_that_drifts_is_looked_at_again(
    probe_that_prints: Script, sessions: Callable[..., Iterator[Latency]]
) -> None:
    probe_that_prints(reference_ms=8.8)
    assert [one.flags for one in sessions(replace(CPU, exclusive=True))] == [("drifted",)] * (1 + latency.RETRIES)


def test_7_a_device_of_its_own_that_is_off_for_good_tells_nothing(
    probe_that_prints: Script, sessions: Callable[..., Iterator[Latency]]
) -> None:
    probe_that_prints(reference_ms=9.6)
    with fails("drifted", "takes \\+20% of its calibrated time"):
        list(sessions(replace(CPU, exclusive=True)))


# 8. It would not do what was asked for


@pytest.mark.usefixtures("change_probe")
def test_8_another_precision_than_asked_for_is_no_figure(tiny_model: Models) -> None:
    model = tiny_model()
    with fails("config_mismatch", "fp32 whatever the file holds"):
        time_files(replace(CPU, precision="fp16"), model, model)


# 9. It answers garbage


DEEP = "[" * 100_000
FIGURE = '{"event": "result", "result": {"ratio": %s}}'


@pytest.mark.parametrize(
    "answer",
    [
        b"Segmentation fault",
        b"",
        b'{"event": "resu',
        b"\xff\xfe\x00\x01" * 100,
        b"null",
        b"[]",
        b'"result"',
        b'{"event": "result"}',
        b'{"event": "result", "result": []}',
        b'{"event": "missing", "files": ["/etc/passwd"]}',
        b'{"event": "missing", "files": [["model.onnx"]]}',
        b'{"event": "failure", "cause": 1}',
        DEEP.encode(),
        ('{"event": "result", "result": {"settings": ' + "[" * 50 + "]" * 50 + "}}").encode(),
        b"x" * 3 * 2**20,
        (FIGURE % "NaN").encode(),
        (FIGURE % ("9" * 5000)).encode(),
    ],
    ids=lambda answer: repr(answer[:20]),
)
def test_9_an_answer_that_cannot_be_read(
    answer: bytes, scripted_probe: Script, model: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "answer").write_bytes(answer + b"\n")
    scripted_probe(f"sys.stdout.buffer.write(open({str(tmp_path / 'answer')!r}, 'rb').read())")
    with fails("garbage"):
        time_files(CPU, model, model)


@pytest.mark.parametrize(
    "changed",
    [
        {"median_ms": 0.0},
        {"median_ms": -1.0},
        {"median_ms": "3.0"},
        {"median_ms": None},
        {"median_ms": 1e9},
        {"median_ms": float("nan")},
        {"ratio": float("inf")},
        {"ratio": 0},
        {"samples": 0},
        {"samples": True},
        {"p90_ms": -0.1},
        {"flags": ["x" * 1000]},
        {"flags": "good"},
        {"identity": None},
        {"settings": {"x": float("nan")}},
    ],
    ids=repr,
)
def test_9_a_figure_that_cannot_be(changed: dict[str, Any], probe_that_prints: Script, model: dict[str, Path]) -> None:
    probe_that_prints(**changed)
    with fails("garbage"):
        time_files(CPU, model, model)


def test_9_a_figure_that_is_missing(scripted_probe: Script, model: dict[str, Path]) -> None:
    scripted_probe("say(event='result', result={'ratio': 1.0})")
    with fails("garbage", "ratio_low makes no sense"):
        time_files(CPU, model, model)


def test_9_what_is_printed_among_the_answers_is_not_skipped(scripted_probe: Script, model: dict[str, Path]) -> None:
    scripted_probe("say(event='phase', phase='loading'); print('Welcome!'); say(event='result', result={})")
    with fails("garbage", "'Welcome!'"):
        time_files(CPU, model, model)


def test_9_a_device_commands_no_terminal_and_spoils_no_database(
    probe_that_prints: Script, scripted_probe: Script, model: dict[str, Path]
) -> None:
    evil = "\x1b]0;owned\x07\x00\ud800\u202e"
    scripted_probe(f"say(event='failure', cause='crash', message={evil!r}, detail={evil!r})")
    with pytest.raises(LatencyError) as caught:
        time_files(CPU, model, model)
    assert not set(str(caught.value) + caught.value.detail) & set("\x1b\x07\x00\ud800\u202e")
    probe_that_prints(identity={evil: [evil]}, settings={"device": evil})
    session = time_files(CPU, model, model)
    assert not set(json.dumps([session.identity, session.settings], ensure_ascii=False)) & set(evil[:1] + evil[-4:])


def test_9_endless_errors_are_not_kept(scripted_probe: Script, model: dict[str, Path]) -> None:
    scripted_probe("for _ in range(100): sys.stderr.write('x' * 10**5)\nsys.exit('that was all')")
    with pytest.raises(LatencyError, match="xxx") as caught:
        time_files(CPU, model, model)
    assert caught.value.detail.endswith("that was all")
    assert len(caught.value.detail) <= 4096


# 10. It is another device than before


def test_10_a_device_that_does_not_tell_all_that_it_told_is_away_and_not_another() -> None:
    """A program on it did not answer this once, or does for the first time."""
    told = latency.identity_of(CPU, {"machine": "a", "power_mode": "MAXN", "max_khz": 1.5e6})
    known = replace(KNOWN, fingerprint=fingerprint_of(told), identity=told)
    for now, match in (
        ({"machine": "a", "max_khz": 1.5e6}, r"\(power_mode was MAXN, is not told now\): it may have changed$"),
        ({**told, "gpu": "NVIDIA T4, 535.1"}, r"\(gpu was not told, is NVIDIA T4, 535\.1\)"),
    ):
        with fails("unreachable", match):
            check_same(CPU, latency.identity_of(CPU, now), known)
    with fails("device_changed", r"not told now, max_khz was 1500000\.0, is 1\.0\)$"):
        check_same(CPU, latency.identity_of(CPU, {"machine": "a", "max_khz": 1.0}), known)


def test_10_another_device_under_the_same_name(probe_that_prints: Script, model: dict[str, Path]) -> None:
    probe_that_prints(identity={"machine": "a", "version": "1"})
    before = latency.identity_of(CPU, time_files(CPU, model, model).identity)
    known = replace(KNOWN, fingerprint=fingerprint_of(before))
    check_same(CPU, before, known)
    probe_that_prints(identity={"machine": "a", "version": "2"})
    after = latency.identity_of(CPU, time_files(CPU, model, model).identity)
    with fails("device_changed", "not the device, or not set up, as it was"):
        check_same(CPU, after, known)


def test_10_a_search_stops_before_it_mixes_devices(
    any_models: None, own_cache: Path, probe_that_prints: Script, small_detector: DetectionModel, tmp_path: Path
) -> None:
    probe_that_prints()
    with fails("device_changed"):
        list(measure_latency(small_detector, CPU, KNOWN, tmp_path))


# The device's disk, and files that it should not take


def test_a_full_disk_on_the_device(
    ssh_server: SshServer, model: dict[str, Path], change_probe: Callable[[str], None], scripted_runtime: Script
) -> None:
    scripted_runtime()
    change_probe("""
        def open(path, mode="r", **more):  # a real device that is always full
            return io.open("/dev/full" if mode == "wb" else path, mode, **more)

        import io
    """)
    with fails("disk_full", "No space left"):
        time_files(ssh_server.target, model, model)
    assert not list(ssh_server.cache.iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a small disk")
def test_a_disk_that_is_too_small_for_the_model(
    ssh_server: SshServer, model: dict[str, Path], change_probe: Callable[[str], None], scripted_runtime: Script
) -> None:
    scripted_runtime()
    change_probe("")
    disk = ssh_server.cache.parents[1]
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", disk], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        with fails("disk_full", "No space left"):
            time_files(ssh_server.target, model, model)
        assert not list(ssh_server.cache.iterdir())
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("../evil.onnx", {}),
        ("model.onnx/..", {}),
        ("model.onnx", {"sha256": "../../evil"}),
        ("model.onnx", {"size": 2**40}),
        ("model.onnx", {"size": 0}),
        ("model.onnx", {"size": -1}),
    ],
)
def test_files_that_a_device_does_not_take(
    name: str,
    about: dict[str, Any],
    ssh_server: SshServer,
    model: dict[str, Path],
    change_probe: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_probe("")
    honest = ssh._about(model["model.onnx"])
    monkeypatch.setattr(ssh, "_about", lambda path: honest | about)
    job = latency._job(ssh_server.target, "measure")
    with fails("garbage", "is no name of a model|bytes; at most"):
        connection(ssh_server.target)(ssh_server.target, job, {name: model["model.onnx"]})
    assert not list(ssh_server.cache.iterdir())


def test_a_file_that_is_not_what_was_announced(
    ssh_server: SshServer, model: dict[str, Path], change_probe: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    change_probe("")
    honest = ssh._about(model["model.onnx"])
    monkeypatch.setattr(ssh, "_about", lambda path: honest | {"sha256": "0" * 64})
    with fails("unreachable", "did not arrive as it was sent"):
        time_files(ssh_server.target, model, model)
    assert not list(ssh_server.cache.iterdir())


# Locks lie where every user of the machine may write


def test_a_link_in_the_place_of_the_locks_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "locks").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="locks"), probe.open_lock("main", tmp_path / "locks"):
        pass
    assert not list((tmp_path / "precious").iterdir())


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "main").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="main"), probe.open_lock("main", tmp_path / "locks"):
        pass
    assert not (tmp_path / "made").exists()


def test_every_user_may_share_the_locks_whoever_was_first(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with probe.open_lock("main", tmp_path / "locks"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "locks").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "locks" / "main").stat().st_mode & 0o777 == 0o644
