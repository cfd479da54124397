"""Planted bugs: a module with one piece of its source replaced, or components that can be broken while they run."""

import inspect
import types
from collections.abc import Sequence
from typing import Any

import pytest


def planted(module: types.ModuleType, original: str, replacement: str) -> types.ModuleType:
    """A copy of ``module`` with ``original``, which must stand in it exactly once, replaced."""
    return _copy(module, [(original, replacement)])


def plant(
    patch: pytest.MonkeyPatch, module: types.ModuleType, changes: Sequence[tuple[str, str]], **names: Any
) -> None:
    """Give the classes of ``module`` the methods they would have if ``changes`` (original, replacement) were made in its source.

    Constructors stay. ``names`` are what the replacements use beyond what the module knows.
    """
    mutant = _copy(module, changes)
    for name, value in names.items():
        patch.setattr(module, name, value, raising=False)
    for name, broken in vars(mutant).items():
        if not inspect.isclass(broken) or broken.__module__ != mutant.__name__:
            continue
        for method, code in inspect.getmembers(broken, inspect.isfunction):
            if method == "__init__" or method not in vars(broken):
                continue
            # With the globals of the module itself, or its classes would meet their copies.
            function = types.FunctionType(code.__code__, vars(module), method, code.__defaults__, code.__closure__)
            function.__kwdefaults__ = code.__kwdefaults__
            patch.setattr(getattr(module, name), method, function)


def _copy(module: types.ModuleType, changes: Sequence[tuple[str, str]]) -> types.ModuleType:
    source = inspect.getsource(module)
    for original, replacement in changes:
        found = source.count(original)
        if found != 1:
            raise ValueError(f"{original!r} stands {found} times in {module.__name__}")
        source = source.replace(original, replacement)
    copy = types.ModuleType(f"{module.__name__}_mutant")
    copy.__file__ = module.__file__
    exec(compile(source, f"<mutant of {module.__name__}>", "exec"), copy.__dict__)
    return copy
