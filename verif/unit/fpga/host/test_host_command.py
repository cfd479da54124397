"""``stmoe host``: every subcommand against a board in Python, and a user's mistakes as one line with exit code 2."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stmoe.fpga.link.serving import PtyServer
from stmoe.sim import cli
from stmoe.verif.unit.fpga.host.board import IMAGE, TEST, GoldenEngine, board

PORT = "PORT"


@pytest.fixture
def there():
    return board()


@pytest.fixture
def stmoe(there, monkeypatch, capsys):
    """Run ``stmoe host`` at the board's port: exit code, stdout, stderr."""
    with PtyServer(there.receive) as served:

        def run(*arguments: str) -> tuple[int, str, str]:
            words = [served.port if word == PORT else word for word in arguments]
            monkeypatch.setattr(sys, "argv", ["stmoe", "host", *words])
            code = 0
            try:
                cli.main()
            except SystemExit as left:
                code = left.code if isinstance(left.code, int) else 0
            out, err = capsys.readouterr()
            return code, out, err

        yield run


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "model.img"
    path.write_bytes(IMAGE)
    return path


def test_info_says_what_is_there(stmoe):
    code, out, _ = stmoe("--port", PORT, "info", "--json")
    content = json.loads(out)
    assert code == 0
    assert (content["preset"], content["protocol"], content["bus_bytes"]) == ("test", 1, TEST.bus_bytes)
    assert content["engine"]["experts_max"] == TEST.experts_max
    assert content["status"]["quiescent"] == 1
    code, out, _ = stmoe("--port", PORT, "--preset", "test", "info")
    assert code == 0
    assert "preset test" in out


def test_registers_are_read_and_written_by_name_and_by_offset(stmoe, there):
    assert stmoe("--port", PORT, "write", "prefetch_budget", "0x12")[:2] == (0, "PREFETCH_BUDGET = 0x00000012\n")
    assert stmoe("--port", PORT, "read", "0x1d0")[:2] == (0, "PREFETCH_BUDGET = 0x00000012\n")
    _, out, _ = stmoe("--port", PORT, "read", "STATUS", "--json")
    assert json.loads(out)["fields"]["quiescent"] == 1
    assert isinstance(there.registers, GoldenEngine)
    assert there.registers.writes == [(0x1D0, 0x12)]


def test_an_image_is_uploaded_verified_and_read(stmoe, there, image, tmp_path):
    code, out, _ = stmoe("--port", PORT, "verify", str(image), "--address", "0x1000", "--json")
    assert code == 1
    assert json.loads(out)["same"] is False
    code, out, _ = stmoe("--port", PORT, "upload", str(image), "--address", "0x1000", "--json")
    assert code == 0
    assert json.loads(out)["written"] == json.loads(out)["blocks"]
    assert there.memory[0x1000 : 0x1000 + len(IMAGE)] == IMAGE
    assert stmoe("--port", PORT, "verify", str(image), "--address", "0x1000")[0] == 0
    code, out, _ = stmoe("--port", PORT, "upload", str(image), "--address", "0x1000")
    assert "0 blocks written" in out
    out_file = tmp_path / "out.bin"
    assert stmoe("--port", PORT, "read", "0x1000", "--bytes", "3000", "--out", str(out_file))[0] == 0
    assert out_file.read_bytes() == IMAGE[:3000]
    assert IMAGE[:16].hex(" ") in stmoe("--port", PORT, "read", "0x1000", "--bytes", "32")[1]


def test_counters_are_those_of_engine_and_link(stmoe):
    code, out, _ = stmoe("--port", PORT, "counters", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["engine"]["token_layers"] == 0
    assert content["link"]["crc_errors"] == 0
    assert "token_layers" in stmoe("--port", PORT, "counters")[1]


MISTAKES = {
    "no port": (("--port", "/dev/nowhere", "info"), "/dev/nowhere: cannot be opened"),
    "no folder": (("--port", PORT, "upload", "/nowhere/x.img"), "/nowhere/x.img: No such file"),
    "wrong preset": (("--port", PORT, "--preset", "demo", "info"), "(test), not"),
    "unknown preset": (("--port", PORT, "--preset", "x", "info"), "unknown preset 'x'"),
    "unknown register": (("--port", PORT, "read", "NOTHING"), "no register 'NOTHING'"),
    "read-only register": (("--port", PORT, "write", "ID", "1"), "register ID is read-only"),
    "no register there": (("--port", PORT, "read", "0x7FC"), "register 0x7fc: refused by the bus"),
    "beyond the registers": (("--port", PORT, "read", "0x1000"), "offsets end at 0xffc"),
    "no number": (("--port", PORT, "write", "PREFETCH_BUDGET", "many"), "value = 'many': not a number"),
    "too large a number": (("--port", PORT, "write", "PREFETCH_BUDGET", "0x100000000"), "does not fit 32 bits"),
    "no memory there": (("--port", PORT, "read", "0x40000", "--bytes", "4"), "memory at 0x40000: refused by the bus"),
    "no address": (("--port", PORT, "read", "-5", "--bytes", "4"), "No such option"),
    "file without memory": (("--port", PORT, "read", "ID", "--out", "x"), "--out needs --bytes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(stmoe, mistake):
    arguments, message = MISTAKES[mistake]
    code, out, err = stmoe(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    if err.startswith("stmoe:"):
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "the file is empty"),
        (lambda data: data[:3000], "truncated within the header"),
        (lambda data: data[:-1], "but its header says"),
        (lambda data: b"x" + data[1:], "no expert image"),
    ],
)
def test_a_bad_image_is_refused_and_nothing_is_written(stmoe, there, image, change, message):
    image.write_bytes(change(IMAGE))
    before = bytes(there.memory)
    code, _, err = stmoe("--port", PORT, "upload", str(image))
    assert code == 2
    assert message in err
    assert there.memory == before
    assert err.count("\n") == 1


def test_every_subcommand_has_help():
    runner = CliRunner()
    listed = runner.invoke(cli.app, ["host", "--help"]).output
    for name in ("info", "read", "write", "upload", "verify", "counters"):
        assert f"  {name} " in listed
        assert runner.invoke(cli.app, ["host", "--port", "x", name, "--help"]).exit_code == 0
