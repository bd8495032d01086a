"""What the component's architecture promises, read off its code; its floors are contracts in pyproject.toml."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import custom_components.edge_agent

ROOT = Path(custom_components.edge_agent.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES_FILE, MAX_LINES_FUNCTION, MAX_LINES_COMPONENT = 350, 60, 5300


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"), path.name)):
            if isinstance(node, kinds):
                yield path.relative_to(ROOT).as_posix(), node


def test_no_file_and_no_function_is_longer_than_the_budget() -> None:
    files = {path.name: len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in files.items() if lines > MAX_LINES_FILE} == {}
    assert sum(files.values()) <= MAX_LINES_COMPONENT
    functions = nodes(ast.FunctionDef, ast.AsyncFunctionDef)
    lengths = {f"{file}:{node.name}": node.end_lineno - node.lineno + 1 for file, node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES_FUNCTION} == {}


def test_nothing_is_validated_by_assert() -> None:
    assert [f"{file}:{node.lineno}" for file, node in nodes(ast.Assert)] == []


def test_no_task_is_started_behind_the_back_of_home_assistant() -> None:
    calls = ((file, ast.unparse(node.func)) for file, node in nodes(ast.Call))
    loose = ("asyncio.create_task", "asyncio.ensure_future", "asyncio.gather", "loop.create_task")
    assert [f"{file}: {call}" for file, call in calls if call.endswith(loose)] == []


def test_nothing_has_to_be_installed() -> None:
    allowed = {"homeassistant", "probatio"}
    imported = {(node.module or "").partition(".")[0] for _, node in nodes(ast.ImportFrom) if not node.level} | {
        alias.name.partition(".")[0] for _, node in nodes(ast.Import) for alias in node.names
    }
    assert imported - sys.stdlib_module_names <= allowed


def test_modules_are_named_for_what_they_hold() -> None:
    assert {path.stem for path in FILES} & {"utils", "util", "helpers", "common", "manager", "handler", "misc"} == set()
