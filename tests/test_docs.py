from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.blocks import list_blocks
from search_spaces.space_file import load_space
from search_spaces.space_reader import list_spaces

DOCS = Path(__file__).parent.parent / "docs"


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_block_and_space_is_documented() -> None:
    prose = re.sub(r"```.*?```", "", (DOCS / "search-space.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`([^`\n]+)`", prose))
    assert {*list_blocks(), *list_spaces()} <= named


def test_the_space_of_the_docs_loads(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(code_blocks("search-space.md", "yaml")[0], encoding="utf-8")
    space = load_space(str(path))
    assert (space.family, space.choices["imgsz"]) == ("yolo11", (320, 416))


def test_the_optuna_study_of_the_docs_runs() -> None:
    names: dict[str, object] = {}
    exec(code_blocks("engine.md", "python")[0], names)
    assert len(names["study"].trials) == 30  # type: ignore[attr-defined]


def test_the_code_of_the_docs_runs() -> None:
    names: dict[str, object] = {}
    exec(code_blocks("search-space.md", "python")[0], names)
    assert len(names["architecture"].key) == 16  # type: ignore[attr-defined]


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    """The tutorial's package, installed as pip would: a module and the entry points of a distribution."""
    module, project = code_blocks("add-a-block.md", "python")[0], code_blocks("add-a-block.md", "toml")[0]
    (tmp_path / "my_blocks").mkdir()
    (tmp_path / "my_blocks" / "large_kernel.py").write_text(module, encoding="utf-8")
    group, line = re.search(r'entry-points."(.+?)"\]\n(.+)', project).groups()  # type: ignore[union-attr]
    info = tmp_path / "my_blocks-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-blocks\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    return tmp_path


def run_profile(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(DOCS.parent)])}
    (folder / "net.yaml").write_text(
        "nc: 2\n"
        "backbone:\n  - [-1, 1, Conv, [16, 3, 2]]\n  - [-1, 2, LargeKernel, [24]]\n"
        "head:\n  - [[1], 1, Detect, [nc]]\n"
    )
    command = [sys.executable, "-m", "nas_yolo", "profile", "net.yaml", "--imgsz", "64"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_tutorials_block_is_found_and_built(tutorial: Path) -> None:
    done = run_profile(tutorial)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout


def test_the_tutorials_block_is_refused_once_it_is_broken(tutorial: Path) -> None:
    path = tutorial / "my_blocks" / "large_kernel.py"
    path.write_text(path.read_text().replace("Conv(chs, chs, 7, g=chs)", "Conv(chs, chs, 7, 2, g=chs)"))
    done = run_profile(tutorial)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(
        "Error: block plugin 'large_kernel' of package 'my-blocks' does not load: block 'LargeKernel'"
    )
    assert "block 'LargeKernel' breaks the contract, check 'shape'" in line
