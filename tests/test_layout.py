"""The rules that hold the packages together."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("search_spaces", "evaluators", "storage", "nas_yolo")
HEAVY = ("torch", "ultralytics", "ray", "optuna", "onnxruntime", "sklearn")
# Which library may be imported where; a path ending in / is a folder.
MAY_IMPORT = {
    "ultralytics": (
        "search_spaces/block_activation.py",
        "search_spaces/hook.py",
        "search_spaces/model_architecture.py",
        "search_spaces/model_file.py",
        "search_spaces/registry.py",
        "search_spaces/contract.py",
        "search_spaces/stock.py",
        "search_spaces/blocks/",
        "evaluators/accuracy/",
        "evaluators/export.py",
        "evaluators/export_ncnn.py",
        "evaluators/complexity.py",
        "evaluators/labels.py",
        "evaluators/tracing.py",
        "evaluators/user_files.py",
        "nas_yolo/design_files.py",
        "nas_yolo/application/arguments.py",
        "nas_yolo/application/pretrained.py",
        "nas_yolo/cli/yolo.py",
    ),
    "ray": ("nas_yolo/runners/ray.py", "evaluators/connections/ray.py"),
    "sqlalchemy": ("storage/",),
    "alembic": ("storage/",),
    "optuna": ("nas_yolo/samplers/", "nas_yolo/integrations/"),
    "onnxruntime": ("evaluators/runtimes/onnxruntime.py", "evaluators/reduced_precision.py"),
    "sklearn": ("nas_yolo/digits.py",),
    # The application neither reads options nor prints.
    "click": ("nas_yolo/cli/",),
    "rich": ("nas_yolo/cli/", "nas_yolo/report/"),
}


def run(code: str, cwd: Path = ROOT) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=cwd
    ).stdout.strip()


@pytest.mark.parametrize("package", [*PACKAGES, "nas_yolo.application"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    loaded = run(f"import sys, {package}; print(*[name for name in {HEAVY} if name in sys.modules])")
    assert loaded == ""


def test_help_loads_nothing_but_click_and_platformdirs() -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from nas_yolo.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        f"print(*[name for name in (*{HEAVY}, 'numpy', 'sqlalchemy', 'rich', 'yaml') if name in sys.modules])"
    )
    assert run(code) == ""


@pytest.mark.parametrize("library", sorted(MAY_IMPORT))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    found = []
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            path = file.relative_to(ROOT).as_posix()
            if re.search(rf"^\s*(?:from|import) {library}\b", file.read_text(), re.MULTILINE):
                found.append(path)
    strangers = [path for path in found if not path.startswith(MAY_IMPORT[library])]
    assert found
    assert strangers == []


@pytest.mark.parametrize("package", [*PACKAGES, "nas_yolo.application"])
def test_all_names_exactly_what_is_public(package: str) -> None:
    code = (
        f"import types, importlib; p = importlib.import_module({package!r})\n"
        "public = {n for n, v in vars(p).items() if not n.startswith('_') and not isinstance(v, types.ModuleType)}\n"
        "print(sorted(public ^ set(getattr(p, '__all__', ()))))"
    )
    assert run(code) in ("[]", "['annotations']", "['refuse_foreign_siblings']")


def test_a_foreign_package_of_our_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\nimport nas_yolo"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert f"nas-yolo needs its own package 'storage' from {ROOT}" in done.stderr


def test_every_command_has_help_with_the_same_words_as_the_overview() -> None:
    from click.testing import CliRunner

    from nas_yolo.cli import COMMANDS, main

    for name in COMMANDS:
        if name == "yolo":
            continue  # its --help is Ultralytics'
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, result.output
        assert "Usage:" in result.output


def test_nothing_names_this_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert tracked
    for name in tracked:
        text = (ROOT / name).read_text(encoding="utf-8", errors="ignore")
        assert f"{Path.home()}/" not in text, name
        if ROOT.parent != Path("/"):
            assert f"{ROOT}/" not in text, name
