"""What the architecture promises, read off the code: twins, budgets, floors, laziness. See docs/architecture.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AGENT = ROOT / "edge_agent"
WIRE = AGENT / "wire.py"
FILES = sorted(AGENT.rglob("*.py"))
MAX_LINES_FILE, MAX_LINES_FUNCTION, MAX_CODE_AGENT = 350, 60, 9800

TASK_MAKERS = {"edge_agent/connection.py", "edge_agent/engines/child.py", "edge_agent/engines/process.py"}
"""The files that may start a task outside a TaskGroup, and so own its end."""
HEAVY = ["openvino_genai", "openvino", "numpy", "gguf", "huggingface_hub", "aiomqtt", "jinja2", "tokenizers"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text("utf-8"), path.name) for path in FILES}


def nodes(trees: dict[Path, ast.Module], *kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kinds):
                yield name_of(path), node


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("name", ["wire.py", "exchange.py", "client.py"])
def test_the_twins_are_equal_to_the_byte(name: str) -> None:
    twin = ROOT / "custom_components/edge_agent" / name
    assert (AGENT / name).read_bytes() == twin.read_bytes(), "run script/sync-wire"


def test_the_wire_needs_the_standard_library_alone_and_python_3_11() -> None:
    tree = ast.parse(WIRE.read_text("utf-8"), feature_version=(3, 11))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert not imported & {"time", "datetime", "socket", "asyncio", "os"}


def test_everything_parses_as_python_3_11() -> None:
    for path in FILES:
        ast.parse(path.read_text("utf-8"), path.name, feature_version=(3, 11))


def lengths() -> dict[str, int]:
    return {name_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}


def test_no_file_is_longer_than_the_budget() -> None:
    assert {name: lines for name, lines in lengths().items() if lines > MAX_LINES_FILE} == {}


def code_lines(tree: ast.Module) -> int:
    """Lines that hold code: neither blank, nor comment, nor docstring."""
    tokens = (node for node in ast.walk(tree) if isinstance(node, ast.expr | ast.stmt | ast.arg | ast.alias))
    strings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)} & {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.Constant)
    }
    told = {id(node) for node in ast.walk(tree) if isinstance(node, ast.Expr) and id(node.value) in strings} | strings
    ends = {line for node in tokens if id(node) not in told for line in (node.lineno, node.end_lineno)}
    return len(ends)


def test_the_agent_is_no_longer_than_the_budget(trees: dict[Path, ast.Module]) -> None:
    assert sum(map(code_lines, trees.values())) <= MAX_CODE_AGENT


def test_no_function_is_longer_than_the_budget(trees: dict[Path, ast.Module]) -> None:
    functions = nodes(trees, ast.FunctionDef, ast.AsyncFunctionDef)
    long = {f"{file}:{node.name}": node.end_lineno - node.lineno + 1 for file, node in functions}
    assert {name: lines for name, lines in long.items() if lines > MAX_LINES_FUNCTION} == {}


def test_nothing_is_validated_by_assert(trees: dict[Path, ast.Module]) -> None:
    assert [f"{file}:{node.lineno}" for file, node in nodes(trees, ast.Assert)] == []


def test_tasks_are_started_in_groups(trees: dict[Path, ast.Module]) -> None:
    loose = re.compile(r"(asyncio\.|(.*\b)?\w*loop(\(\))?\.)?(create_task|ensure_future)")
    calls = ((file, ast.unparse(node.func)) for file, node in nodes(trees, ast.Call))
    assert {file for file, function in calls if loose.fullmatch(function)} <= TASK_MAKERS


def test_modules_are_named_for_what_they_hold() -> None:
    modules = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert modules & {"utils", "util", "helpers", "common", "manager", "handler", "misc"} == set()
    assert modules & sys.stdlib_module_names == set()


def test_the_command_line_loads_no_runtime_and_no_transport() -> None:
    code = f"import sys, edge_agent.cli; print(sorted(set({HEAVY}) & sys.modules.keys()))"
    done = run(sys.executable, "-c", code)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_floors_hold() -> None:
    done = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(path.name[:5] for path in (ROOT / "docs/decisions").glob("*.md"))
    assert numbers == [f"{number:04}-" for number in range(1, len(numbers) + 1)]
    assert numbers


def test_the_generated_pages_are_current() -> None:
    done = run(sys.executable, "script/docs", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
