from __future__ import annotations

from pathlib import Path

import pytest

from evaluators.target import BUILT_IN, Target, TargetError, get_target, list_runtimes, load_targets, targets_file


@pytest.fixture
def users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = targets_file()
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir()
    return path


def test_cpu_is_built_in(users_file: Path) -> None:
    assert not users_file.exists()
    assert load_targets() == {"cpu": Target("cpu", "onnxruntime", 1, "fp32")}
    assert get_target("cpu") == Target("cpu")


def test_the_user_s_file_adds_targets(users_file: Path) -> None:
    users_file.write_text("cpu4: {threads: 4}\npi: {runtime: onnxruntime, threads: 2, precision: fp32}\n7: {}\n")
    assert load_targets() == {
        "cpu": Target("cpu"),
        "cpu4": Target("cpu4", threads=4),
        "pi": Target("pi", threads=2),
        "7": Target("7"),
    }
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
    assert set(load_targets(tmp_path / "other.yaml")) == {"cpu", "theirs"}


def test_an_unknown_target_is_refused_with_the_way_to_add_it(users_file: Path) -> None:
    users_file.write_text("cpu4: {threads: 4}\n")
    with pytest.raises(TargetError) as caught:
        get_target("jetson")
    message = str(caught.value)
    assert message.startswith("unknown target 'jetson'; known: cpu, cpu4. ")
    assert f"{users_file}, e.g. jetson: {{runtime: onnxruntime, threads: 4}}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: {threads: 2", "is not valid YAML"),
        ("- cpu4\n", "must be a mapping of target names"),
        ("cpu4\n", "must be a mapping of target names"),
        ("a: 4\n", "target 'a' must be a mapping with runtime, threads, precision"),
        ("a:\n", "target 'a' must be a mapping with runtime, threads, precision"),
        ("a: {treads: 4}\n", "unknown key in target 'a': 'treads'; did you mean 'threads'?"),
        ("a: {name: b}\n", "unknown key in target 'a': 'name'"),
        ("a: {runtime: onxruntime}\n", "unknown runtime 'onxruntime'; did you mean 'onnxruntime'?"),
        ("a: {runtime: [onnxruntime]}\n", "unknown runtime"),
        ("a: {threads: 0}\n", "threads of target 'a' must be a whole number from 1 to 256"),
        ("a: {threads: 257}\n", "threads of target 'a' must be"),
        ("a: {threads: 1.5}\n", "threads of target 'a' must be"),
        ("a: {threads: two}\n", "threads of target 'a' must be"),
        ("a: {threads: }\n", "threads of target 'a' must be"),
        ("a: {threads: true}\n", "threads of target 'a' must be"),
        ("a: {precision: int8}\n", "precision of target 'a' must be fp32"),
    ],
)
def test_a_refusal_names_the_file_and_the_target(content: str, message: str, users_file: Path) -> None:
    users_file.write_text(content)
    with pytest.raises(TargetError) as caught:
        load_targets()
    assert str(caught.value).startswith(str(users_file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(users_file: Path) -> None:
    users_file.write_bytes(b"\xff\xfe")
    with pytest.raises(TargetError, match="not valid YAML"):
        load_targets()


def test_runtimes_are_the_files_of_their_folder() -> None:
    import evaluators.runtimes

    folder = Path(evaluators.runtimes.__file__).parent
    assert list_runtimes() == tuple(sorted(path.stem for path in folder.glob("[!_]*.py")))
    assert {target.runtime for target in BUILT_IN.values()} <= set(list_runtimes())
