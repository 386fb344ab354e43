from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluators.target import (
    BUILT_IN,
    Target,
    TargetError,
    get_target,
    list_runtimes,
    load_targets,
    make_target,
    own_targets,
    save_targets,
    targets_file,
)


@pytest.fixture
def users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = targets_file()
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir()
    return path


def test_without_a_file_there_are_those_that_are_built_in(users_file: Path) -> None:
    assert not users_file.exists()
    assert load_targets() == BUILT_IN
    assert own_targets() == {}
    assert get_target("cpu") == Target("cpu", "onnxruntime", 1, "fp32", "cpu")


def test_the_user_s_file_adds_targets(users_file: Path) -> None:
    users_file.write_text(
        "cpu4: {threads: 4}\n7: {}\npi: {ssh: pi@host, port: 2222, python: ~/env/bin/python3, threads: 2}\n"
    )
    own = {
        "cpu4": Target("cpu4", threads=4),
        "7": Target("7"),
        "pi": Target("pi", threads=2, ssh="pi@host", port=2222, python="~/env/bin/python3", exclusive=True),
    }
    assert own_targets() == own
    assert load_targets() == BUILT_IN | own
    assert get_target("cpu4").threads == 4


def test_the_user_s_file_may_redefine_the_built_in(users_file: Path) -> None:
    users_file.write_text("cpu: {threads: 2}\n")
    assert get_target("cpu") == Target("cpu", threads=2)
    assert BUILT_IN["cpu"].threads == 1


@pytest.mark.parametrize("text", ["", "# none yet\n"])
def test_an_empty_file_adds_nothing(text: str, users_file: Path) -> None:
    users_file.write_text(text)
    assert load_targets() == BUILT_IN


def test_another_file_can_be_given(users_file: Path, tmp_path: Path) -> None:
    users_file.write_text("mine: {}\n")
    (tmp_path / "other.yaml").write_text("theirs: {}\n")
    assert set(load_targets(tmp_path / "other.yaml")) == {*BUILT_IN, "theirs"}


def test_a_file_that_is_named_must_be_there(users_file: Path, tmp_path: Path) -> None:
    users_file.write_text("mine: {}\n")
    with pytest.raises(TargetError, match=r"^targets file .*none\.yaml does not exist$"):
        load_targets(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"threads": 4, "python": "/opt/venv/bin/python3"},
        {"threads": 2, "exclusive": True},
        {"device": "cuda", "precision": "fp16"},
        {"ray": True, "exclusive": False},
        {"ssh": "user@[fe80::1%eth0]", "port": 22, "ssh_config": __file__},
        {"ssh": "host", "exclusive": False, "device": "tensorrt", "precision": "int8"},
    ],
)
def test_what_is_saved_is_what_is_loaded(given: dict[str, Any], tmp_path: Path) -> None:
    targets = {"device": make_target("device", given), "other": make_target("other", {"ssh": "pi@host"})}
    path = save_targets(targets, tmp_path / "new" / "targets.yaml")
    assert own_targets(path) == targets
    assert [file.name for file in path.parent.iterdir()] == ["targets.yaml"]
    assert save_targets({}, path) == path
    assert own_targets(path) == {}


def test_they_are_saved_where_they_are_looked_for(users_file: Path) -> None:
    assert save_targets({"mine": Target("mine", threads=3)}) == users_file
    assert get_target("mine") == Target("mine", threads=3)


def test_another_device_is_ours_alone_unless_it_is_said_to_be_shared() -> None:
    assert make_target("pi", {"ssh": "pi@host"}).exclusive
    assert make_target("pi", {"ray": True}).exclusive
    assert not make_target("pi", {"ssh": "pi@host", "exclusive": False}).exclusive
    assert not make_target("here", {}).exclusive


def test_what_is_here_is_local() -> None:
    assert make_target("here", {"python": "/usr/bin/python3"}).is_local
    assert not make_target("pi", {"ssh": "pi@host"}).is_local
    assert not make_target("pi", {"ray": True}).is_local


def test_it_says_what_it_is() -> None:
    assert str(make_target("pi", {"ssh": "pi@host"})) == "onnxruntime fp32, 1 thread, ssh pi@host"
    assert str(make_target("far", {"ray": True, "threads": 2})) == (
        "onnxruntime fp32, 2 threads, the Ray node that owns target:far"
    )
    assert str(make_target("gpu", {"device": "cuda"})) == "onnxruntime fp32 on cuda, 1 thread, here"


def test_an_unknown_target_is_refused_with_the_way_to_add_it(users_file: Path) -> None:
    users_file.write_text("cpu4: {threads: 4}\n")
    with pytest.raises(TargetError) as caught:
        get_target("jetson")
    message = str(caught.value)
    assert message.startswith("unknown target 'jetson'; known: cpu, cpu4, ")
    assert message.endswith("To add a device: nas-yolo target add jetson --ssh user@host --runtime onnxruntime")
    assert "\n" not in message


REFUSED = [
    ("a: {threads: 2", "is not valid YAML"),
    ("- cpu4\n", "must be a mapping of target names"),
    ("cpu4\n", "must be a mapping of target names"),
    ("a: 4\n", "target 'a' must be a mapping with runtime, threads, precision"),
    ("a:\n", "target 'a' must be a mapping with runtime, threads, precision"),
    ("a b: {}\n", "target name 'a b' may have letters"),
    ("-a: {}\n", "target name '-a' may have letters"),
    (f"{'a' * 51}: {{}}\n", "may have letters, digits, '.', '_' and '-', and 50 of them"),
    ("a: {treads: 4}\n", "unknown key in target 'a': 'treads'; did you mean 'threads'?"),
    ("a: {name: b}\n", "unknown key in target 'a': 'name'"),
    ("a: {postprocess: true}\n", "unknown key in target 'a': 'postprocess'"),
    ("a: {runtime: onxruntime}\n", "unknown runtime 'onxruntime'; did you mean 'onnxruntime'?"),
    ("a: {runtime: [onnxruntime]}\n", "unknown runtime"),
    ("a: {runtime: }\n", "unknown runtime"),
    ("a: {threads: 0}\n", "threads of target 'a' must be a whole number from 1 to 256"),
    ("a: {threads: 257}\n", "threads of target 'a' must be"),
    ("a: {threads: 1.5}\n", "threads of target 'a' must be"),
    ("a: {threads: two}\n", "threads of target 'a' must be"),
    ("a: {threads: }\n", "threads of target 'a' must be"),
    ("a: {threads: true}\n", "threads of target 'a' must be"),
    ("a: {precision: int4}\n", "precision of target 'a' must be fp32 or fp16 or int8 with onnxruntime"),
    ("a: {precision: [fp32]}\n", "precision of target 'a' must be"),
    ("a: {device: tpu}\n", "device of target 'a' must be cpu or cuda or tensorrt with onnxruntime"),
    ("a: {ray: 1}\n", "ray of target 'a' must be true or false"),
    ("a: {exclusive: always}\n", "exclusive of target 'a' must be true or false"),
    ("a: {ray: true, ssh: host}\n", "target 'a' is reached by ssh or by ray, not both"),
    ("a: {ssh: -oProxyCommand=x}\n", "ssh of target 'a' must be like user@host, not '-oProxyCommand=x'"),
    ("a: {ssh: host -v}\n", "ssh of target 'a' must be like user@host"),
    ("a: {ssh: 'host;reboot'}\n", "ssh of target 'a' must be like user@host"),
    ('a: {ssh: "host\\n"}\n', "ssh of target 'a' must be like user@host"),
    ("a: {ssh: ''}\n", "ssh of target 'a' must be like user@host"),
    ("a: {ssh: 7}\n", "ssh of target 'a' must be like user@host"),
    ("a: {python: -c}\n", "python of target 'a' must be like /opt/venv/bin/python3, not '-c'"),
    ("""a: {python: "it's"}\n""", "python of target 'a' must be like"),
    ("""a: {python: 'a"b'}\n""", "python of target 'a' must be like"),
    ("a: {python: $(reboot)}\n", "python of target 'a' must be like"),
    ("a: {python: a b}\n", "python of target 'a' must be like"),
    ("a: {python: `id`}\n", "is not valid YAML"),
    ("a: {python: '`id`'}\n", "python of target 'a' must be like"),
    ("a: {ssh: host, port: 0}\n", "port of target 'a' must be a whole number from 1 to 65535"),
    ("a: {ssh: host, port: 65536}\n", "port of target 'a' must be a whole number"),
    ("a: {ssh: host, port: '22'}\n", "port of target 'a' must be a whole number"),
    ("a: {port: 22}\n", "port of target 'a' needs ssh"),
    ("a: {ssh: host, ssh_config: /no/such/file}\n", "ssh_config of target 'a': /no/such/file does not exist"),
    (f"a: {{ssh_config: {__file__}}}\n", "ssh_config of target 'a' needs ssh"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[content.strip() for content, _ in REFUSED])
def test_a_refusal_names_the_file_and_the_target(content: str, message: str, users_file: Path) -> None:
    users_file.write_text(content)
    with pytest.raises(TargetError) as caught:
        load_targets()
    assert str(caught.value).startswith(str(users_file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_that_are_code_are_not_sent_over_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import evaluators.runtimes

    if "torch" not in list_runtimes():
        (tmp_path / "torch.py").write_text("PRECISIONS = ('fp32',)\nDEVICES = ('cpu', 'cuda')\n")
        monkeypatch.setattr(evaluators.runtimes, "__path__", [*evaluators.runtimes.__path__, str(tmp_path)])
    assert make_target("a", {"runtime": "torch", "device": "cuda"}).device == "cuda"
    with pytest.raises(TargetError, match="runtime torch measures on this machine or a Ray node only"):
        make_target("a", {"runtime": "torch", "ssh": "host"})


def test_a_file_that_is_not_text_is_refused(users_file: Path) -> None:
    users_file.write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError, match="not valid YAML"):
        load_targets()


def test_runtimes_are_the_files_of_their_folder() -> None:
    import evaluators.runtimes

    folder = Path(evaluators.runtimes.__file__).parent
    assert list_runtimes() == tuple(sorted(path.stem for path in folder.glob("[!_]*.py")))
    assert "onnxruntime" in list_runtimes()
