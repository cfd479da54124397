"""The testplan and the tests agree."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load_plan() -> dict[str, list[str]]:
    """Feature → the tests that verify it."""
    features = tomllib.loads((ROOT / "verif" / "testplan.toml").read_text())["feature"]
    return {feature["name"]: feature["tests"] for feature in features}


def functions_of(file: Path) -> set[str]:
    """Names of the test functions in ``file``."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse(file.read_text()))
    return {node.name for node in nodes if isinstance(node, functions) and node.name.startswith("test_")}


def faults(plan: dict[str, list[str]], files: set[str]) -> list[str]:
    """What does not agree."""
    found = [f"{feature}: no tests" for feature, tests in plan.items() if not tests]
    named = {test for tests in plan.values() for test in tests}
    for test in sorted(named):
        file, _, function = test.partition("::")
        if not (ROOT / file).is_file():
            found.append(f"{file}: no such file")
        elif function and function not in functions_of(ROOT / file):
            found.append(f"{test}: no such test")
    found += [f"{file}: in no feature" for file in sorted(files - {test.partition("::")[0] for test in named})]
    return found


def test_every_test_of_the_plan_exists_and_every_test_file_is_in_it():
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "verif").rglob("test_*.py")}
    assert faults(load_plan(), files) == []


@pytest.mark.parametrize(
    ("tests", "fault"),
    [
        (["verif/unit/test_nothing.py"], "verif/unit/test_nothing.py: no such file"),
        (["verif/unit/test_cli.py::test_nothing"], "verif/unit/test_cli.py::test_nothing: no such test"),
        ([], "planted: no tests"),
    ],
)
def test_a_wrong_plan_is_caught(tests, fault):
    assert fault in faults(load_plan() | {"planted": tests}, set())


def test_a_test_file_in_no_feature_is_caught():
    assert faults(load_plan(), {"verif/unit/test_new.py"}) == ["verif/unit/test_new.py: in no feature"]
