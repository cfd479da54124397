"""The driver over ptys and TCP, on good lines and bad: every request once, uploads that go on, and errors that say what is wrong."""

import dataclasses
import random

import numpy as np
import pytest
from crc32c import crc32c

from stmoe.fpga.host import upload as upload_module
from stmoe.fpga.host.device import Device
from stmoe.fpga.host.engine import RemoteEngine
from stmoe.fpga.host.link import Link, LinkError, u8
from stmoe.fpga.host.upload import SEAL, differing, upload
from stmoe.fpga.link.device import LinkDevice
from stmoe.fpga.link.frames import decode_frame, encode_frame
from stmoe.fpga.link.protocol import Operation
from stmoe.fpga.link.serving import PtyServer, TcpServer
from stmoe.model.moe import moe_layer
from stmoe.model.policy import Policy
from stmoe.model.presets import preset
from stmoe.model.quantize import random_activations
from stmoe.sim.errors import UserError
from stmoe.sim.session import Session, Setting
from stmoe.verif.unit.fpga.host.board import IMAGE, MODEL, SHAPE, TEST, BadLine, GoldenEngine, board, flips

SERVERS = [PtyServer, TcpServer]
#: Seconds; answers come within a millisecond.
SHORT = 0.15


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(upload_module, "BLOCK", 4096)


def image_in(device: LinkDevice, address: int = 0) -> bytes:
    return bytes(device.memory[address : address + len(IMAGE)])


@pytest.mark.parametrize("server", SERVERS)
def test_registers_memory_and_counters_over_any_port(server):
    there = board()
    with server(there.receive) as served, Link(served.port) as link:
        device = Device(link, TEST)
        device.write_all({"MODEL_EXPERTS": 8, "PREFETCH_BUDGET": 77})
        assert (device.read("MODEL_EXPERTS"), device.read("PREFETCH_BUDGET")) == (8, 77)
        data = bytes(range(256)) * 20
        device.write_memory(0x333, data)
        assert device.read_memory(0x333, len(data)) == data
        assert device.memory_crc(0x333, len(data)) == crc32c(data)
        assert device.counters()["token_layers"] == 0
        assert device.link_counters()["repeats"] == link.retries == 0
        assert link.identity.clock_hz == there.clock_hz


def test_without_a_build_given_the_preset_is_found():
    with PtyServer(board().receive) as served, Link(served.port) as link:
        assert Device(link).config == TEST


@pytest.mark.parametrize("server", SERVERS)
def test_a_session_runs_over_the_cable_bit_exact(server):
    there, rng = board(), np.random.default_rng(5)
    with server(there.receive) as served, Link(served.port) as link:
        engine = RemoteEngine(link, TEST)
        image = np.frombuffer(IMAGE, np.uint8)
        session = Session(engine, TEST, image, Setting(policy=Policy.LRU, window=100))
        for token in range(2):
            for layer in range(SHAPE.layers):
                x16, exponent = random_activations(rng, SHAPE.d_model)
                result = session.layer(layer, 0, token, x16, exponent)
                golden = moe_layer(MODEL.layers[layer], SHAPE, x16, exponent)
                assert np.array_equal(result.y, golden.y)
        assert session.counters()["token_layers"] == 2 * SHAPE.layers
        assert engine.memory[16:48].tobytes() == IMAGE[16:48]
    assert image_in(there) == IMAGE


def effects_on_a_bad_line(line: BadLine) -> tuple[list[tuple[int, int]], int]:
    """What 40 writes left behind, and how many requests went out again."""
    engine = line.device.registers
    assert isinstance(engine, GoldenEngine)
    with PtyServer(line) as served, Link(served.port, timeout=SHORT, tries=20) as link:
        device = Device(link, TEST)
        before = len(engine.writes)
        for value in range(40):
            device.write("PREFETCH_BUDGET", value)
        assert device.read("PREFETCH_BUDGET") == 39
        return engine.writes[before:], link.retries


def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice():
    number = 0

    def every_third_is_lost(answer: bytes) -> bytes:
        nonlocal number
        number += 1
        return b"" if number % 3 == 0 else answer

    writes, retries = effects_on_a_bad_line(BadLine(board(), to_host=every_third_is_lost))
    assert [value for _, value in writes] == list(range(40))
    assert retries > 10


@pytest.mark.parametrize("seed", [1, 2])
def test_on_a_line_bad_both_ways_everything_is_done_once(seed):
    line = BadLine(board(), flips(seed, 0.15), flips(seed + 100, 0.15))
    writes, retries = effects_on_a_bad_line(line)
    assert [value for _, value in writes] == list(range(40))
    assert retries > 3


def test_a_link_that_executes_repeats_is_caught(monkeypatch):
    original = LinkDevice._response

    def forgetful(self, *request):
        self._last = None
        return original(self, *request)

    monkeypatch.setattr(LinkDevice, "_response", forgetful)
    with pytest.raises(AssertionError):
        test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice()


@pytest.mark.parametrize("server", SERVERS)
def test_an_upload_is_checked_and_a_second_one_sends_nothing(server, small_blocks):
    there = board()
    done: list[int] = []
    with server(there.receive) as served, Link(served.port) as link:
        device = Device(link, TEST)
        report = upload(device, IMAGE, 0x1000, done=done.append)
        assert image_in(there, 0x1000) == IMAGE
        assert (report.written, report.kept) == (report.blocks, 0)
        assert sum(done) == len(IMAGE)
        there.executed.clear()
        again = upload(device, IMAGE, 0x1000)
        assert (again.written, again.kept) == (0, again.blocks)
        assert Operation.MEMORY_WRITE not in {operation for _, operation in there.executed}
        there.memory[0x1000 + 5000] ^= 1
        assert differing(device, 0x1000, IMAGE) == [4096]
        assert upload(device, IMAGE, 0x1000, resume=False).kept == 0
        assert image_in(there, 0x1000) == IMAGE


@pytest.mark.parametrize("server", SERVERS)
def test_unplugged_within_an_upload_it_goes_on_where_it_was(server, small_blocks):
    there = board()
    left = [len(IMAGE) // 2]

    with server(there.receive) as served:

        def unplugged(count: int) -> None:
            left[0] -= count
            if left[0] <= 0:
                served.close()

        gone = pytest.raises(LinkError, match=r"the connection is gone|no answer")
        with Link(served.port, timeout=SHORT, tries=2) as link, gone as caught:
            upload(Device(link, TEST), IMAGE, done=unplugged)
    assert "\n" not in str(caught.value)
    # Half an image is none.
    assert there.memory[:SEAL] == bytes(SEAL)
    with server(there.receive) as served, Link(served.port) as link:
        report = upload(Device(link, TEST), IMAGE)
    assert report.kept >= report.blocks // 3
    assert image_in(there) == IMAGE


class StuckMemory(bytearray):
    """A memory in which one byte does not change."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setitem__(5000, 0xA5)


def test_memory_that_does_not_keep_what_was_written_is_found_by_the_read_back():
    there = board()
    there.memory = StuckMemory(there.memory)
    wrong = pytest.raises(LinkError, match=r"memory at 0x0: .* read back wrong 3 times")
    with PtyServer(there.receive) as served, Link(served.port) as link, wrong:
        upload(Device(link, TEST), IMAGE)


def test_an_upload_that_does_not_read_back_is_caught(monkeypatch):
    monkeypatch.setattr(upload_module, "_write_block", lambda device, *block: device.write_memory(*block))
    with pytest.raises(pytest.fail.Exception):
        test_memory_that_does_not_keep_what_was_written_is_found_by_the_read_back()


def test_an_image_too_large_for_the_memory_is_refused_before_anything_is_written():
    there = board(memory_bytes=len(IMAGE) - 1)
    before = bytes(there.memory)
    too_large = pytest.raises(LinkError, match="do not fit the memory of the board")
    with PtyServer(there.receive) as served, Link(served.port) as link, too_large:
        upload(Device(link, TEST), IMAGE)
    assert there.memory == before


def test_a_port_that_does_not_answer_and_one_that_is_not_there():
    with PtyServer(lambda data: b"") as served, pytest.raises(LinkError, match="no answer to IDENTIFY in 2 tries"):
        Link(served.port, timeout=0.05, tries=2)
    with pytest.raises(LinkError, match=r"/dev/nowhere: cannot be opened"):
        Link("/dev/nowhere")
    with pytest.raises(LinkError, match="cannot be opened"):
        Link("socket://127.0.0.1:1")
    with pytest.raises(LinkError, match="cannot be opened"):
        Link("nonsense://x")
    with pytest.raises(UserError, match="baud = 0"):
        Link("/dev/nowhere", 0)
    with pytest.raises(UserError, match="timeout = -1"):
        Link("/dev/nowhere", timeout=-1)


@pytest.mark.parametrize("noise", [bytes(range(256)), random.Random(8).randbytes(300), b"login: ", b"\x00\x00\x00"])
def test_something_else_at_the_port_is_no_link(noise):
    with PtyServer(lambda data: noise) as served, pytest.raises(LinkError, match=r"no answer|wrong checksum"):
        Link(served.port, timeout=0.05, tries=3)


def changed_identity(change) -> BadLine:
    """A board whose answer to IDENTIFY is changed."""

    def to_host(answer: bytes) -> bytes:
        body = decode_frame(answer.rstrip(b"\0"))
        if body[1] == Operation.IDENTIFY | 0x80:
            return encode_frame(change(body))
        return answer

    return BadLine(board(), to_host=to_host)


def test_wrong_magic_nonce_and_protocol_are_refused():
    for change, message in (
        (lambda body: body[:7] + b"OTHR" + body[11:], "not a link of stmoe"),
        (lambda body: body[:3] + bytes(4) + body[7:], "not a link of stmoe"),
        (lambda body: body[:11] + b"\x02\x00" + body[13:], "speaks version 2 of the protocol, not 1"),
    ):
        with PtyServer(changed_identity(change)) as served, pytest.raises(LinkError, match=message):
            Link(served.port)


def test_another_build_and_another_device_are_refused():
    other = dataclasses.replace(TEST, name="other", frames=64)
    with PtyServer(board(other).receive) as served, Link(served.port) as link:
        with pytest.raises(LinkError, match=r"build 0x[0-9a-f]{8} \(none of the presets\), not 0x[0-9a-f]{8} \(test\)"):
            Device(link, TEST)
        with pytest.raises(LinkError, match="is none of the presets"):
            Device(link)
    demo = preset("demo")[0]
    with (
        PtyServer(board(demo).receive) as served,
        Link(served.port) as link,
        pytest.raises(LinkError, match=r"\(demo\), not"),
    ):
        Device(link, TEST)
    for offset, message in ((0, "register ID is 0x00000000"), (4, "register VERSION is 0x0")):
        there = board()
        assert isinstance(there.registers, GoldenEngine)
        there.registers.values[offset] = 0
        with PtyServer(there.receive) as served, Link(served.port) as link, pytest.raises(LinkError, match=message):
            Device(link, TEST)


def test_refused_accesses_name_register_and_address():
    there = board()
    with PtyServer(there.receive) as served, Link(served.port) as link:
        device = Device(link, TEST)
        with pytest.raises(LinkError, match=r"writing register CAPS0: refused by the bus"):
            device.write_all({"PREFETCH_BUDGET": 1, "CAPS0": 1})
        offsets = {register.offset for register in device.registers}
        hole = next(offset for offset in range(0, 0x1000, 4) if offset not in offsets)
        with pytest.raises(LinkError, match=f"register {hole:#x}: refused by the bus"):
            device.read_words(hole - 4, 2)
        with pytest.raises(LinkError, match=r"memory at 0x40000: refused by the bus"):
            device.read_memory(0x3FFF0, 100)
        with pytest.raises(LinkError, match="no such address"):
            device.read_memory(1 << 33, 1)
        there.silent.add("memory")
        with pytest.raises(LinkError, match=r"memory at 0x0: no answer from the bus"):
            device.read_memory(0, 1)


def test_a_message_of_an_engine_that_does_not_run_is_an_error_of_the_engine():
    there = board()
    engine = there.engine
    assert isinstance(engine, GoldenEngine)
    engine.take = lambda beat, last: False  # type: ignore[method-assign]
    with PtyServer(there.receive) as served, Link(served.port) as link:
        remote = RemoteEngine(link, TEST)
        remote.stall_seconds = 0.1
        with pytest.raises(RuntimeError, match="the engine takes no message"):
            remote.send(bytes(64))
        with pytest.raises(RuntimeError, match="no result for"):
            remote.result()
        with pytest.raises(LinkError, match="STREAM_SEND: refused with TIMEOUT after 0 words"):
            link.request(Operation.STREAM_SEND, u8(1), bytes(64))
