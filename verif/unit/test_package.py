"""The wheel: the folders of the checkout import from it as one package, data files included."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = (".v", ".vlt", ".h", ".cpp", ".safetensors", ".json", ".toml")


def copy(names: list[str], to: Path) -> Path:
    """The tracked files alone, links as links: a build in the checkout would find what an earlier one left there."""
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def tracked(*folders: str) -> list[str]:
    """Files of the checkout under ``folders``."""
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file() or (ROOT / name).is_symlink()]


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_data_file_and_imports_without_the_checkout(tmp_path):
    sources = copy(tracked(), tmp_path / "sources")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(sources)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("stmoe-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(site)
    wanted = {f"stmoe/{name}" for name in tracked("hw", "model", "sim", "fpga") if name.endswith((".py", *DATA))}
    assert wanted <= names, sorted(wanted - names)

    code = "import stmoe.hw.export as e, stmoe.model.registers, stmoe.sim.cli; print(e.__file__)"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == site / "stmoe" / "hw" / "export.py"

    code = "from stmoe.sim.cli import main; main()"
    command = [sys.executable, "-c", code, "registers", "--format", "c"]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
