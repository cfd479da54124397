"""Planted bugs: a module with one piece of its source replaced."""

import inspect
import types


def planted(module: types.ModuleType, original: str, replacement: str) -> types.ModuleType:
    """A copy of ``module`` with ``original``, which must stand in it exactly once, replaced."""
    source = inspect.getsource(module)
    found = source.count(original)
    if found != 1:
        raise ValueError(f"{original!r} stands {found} times in {module.__name__}")
    copy = types.ModuleType(f"{module.__name__}_mutant")
    copy.__file__ = module.__file__
    exec(compile(source.replace(original, replacement), f"<mutant of {module.__name__}>", "exec"), copy.__dict__)
    return copy
