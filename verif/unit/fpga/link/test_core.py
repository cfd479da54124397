"""The link's hardware answers byte for byte like its golden twin, and does to the world behind it what the twin does, once."""

import random

import pytest

from stmoe.fpga.link import (
    executor,
    extent,
    frame_receiver,
    mover,
    register_mover,
    request_reader,
    request_rules,
    response_writer,
    transfers,
)
from stmoe.fpga.link.frames import encode_frame
from stmoe.fpga.link.protocol import PAYLOAD_MAX as DEFAULT_PAYLOAD
from stmoe.fpga.link.protocol import Operation
from stmoe.model.presets import preset
from stmoe.verif.unit.fpga.link.core_bench import (
    PAYLOAD_MAX,
    Change,
    Silence,
    Step,
    identify,
    request,
    session,
    u16,
    u32,
    u64,
)
from stmoe.verif.unit.fpga.link.world import MEMORY_BYTES
from stmoe.verif.unit.mutant import plant

TEST, DEMO = preset("test")[0], preset("demo")[0]
CONFIGS = [pytest.param(c, id=c.name) for c in (TEST, DEMO)]


def random_request(rng: random.Random, config, sequence: int) -> bytes:
    """A request of any kind, mostly a sensible one."""
    address = rng.choice([rng.randrange(MEMORY_BYTES), MEMORY_BYTES - rng.randrange(1, 100), rng.randrange(64)])
    register = rng.choice([4 * rng.randrange(16), 0x100, 0x010, 0xFF8, 0xFFC, 0x1000, 0x102, rng.getrandbits(32)])
    data = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(rng.randrange(PAYLOAD_MAX + 1)))
    match rng.choice(list(Operation)):
        case Operation.IDENTIFY:
            return identify(sequence, rng.getrandbits(32))
        case Operation.REGISTER_READ:
            return request(sequence, Operation.REGISTER_READ, u32(register), u16(rng.choice([0, 1, 2, 5, 16, 17])))
        case Operation.REGISTER_WRITE:
            pairs = [
                u32(rng.choice([register, 0x20, 0x24])) + u32(rng.getrandbits(32)) for _ in range(rng.randrange(4))
            ]
            return request(sequence, Operation.REGISTER_WRITE, *pairs)
        case Operation.MEMORY_WRITE:
            return request(sequence, Operation.MEMORY_WRITE, u64(address), data)
        case Operation.MEMORY_READ:
            return request(sequence, Operation.MEMORY_READ, u64(address), u16(rng.randrange(PAYLOAD_MAX + 2)))
        case Operation.MEMORY_CRC:
            return request(sequence, Operation.MEMORY_CRC, u64(address), u32(rng.randrange(120)))
        case Operation.STREAM_SEND:
            return request(sequence, Operation.STREAM_SEND, bytes([rng.randrange(4)]), data)
        case Operation.STREAM_RECEIVE:
            return request(sequence, Operation.STREAM_RECEIVE, u16(rng.randrange(PAYLOAD_MAX + 2)))
        case other:
            return request(sequence, other)


def random_steps(rng: random.Random, config, number: int) -> list[Step]:
    """Requests with rising sequence numbers, results in between."""
    steps: list[Step] = []
    for sequence in range(number):
        if rng.random() < 0.2:
            result = rng.randbytes(config.bus_bytes * rng.randrange(1, 12))
            steps.append(Change(lambda world, _, result=result: world.streams.answer(result)))
        steps.append(random_request(rng, config, sequence))
    return steps


def corrupted(rng: random.Random, frame: bytes) -> list[bytes]:
    """What a bad line makes of a frame: bits flipped, bytes lost, garbage, cut short, twice."""
    broken = bytearray(frame)
    match rng.randrange(7):
        case 0:
            for _ in range(rng.randrange(1, 4)):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        case 1:
            del broken[rng.randrange(len(broken))]
        case 2:
            place = rng.randrange(len(broken))
            broken[place:place] = rng.randbytes(rng.randrange(1, 9))
        case 3:
            del broken[rng.randrange(len(broken)) :]
        case 4:
            return [frame] * rng.randrange(2, 4)
        case 5:
            broken[:0] = rng.randbytes(rng.randrange(1, 200))
        case _:
            pass
    return [bytes(broken)]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("config", CONFIGS)
def test_random_requests_are_answered_and_executed_like_the_twins(config, seed):
    rng = random.Random(seed)
    session(config, random_steps(rng, config, 12), seed, bad=frozenset({64, 256})).check()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 14))
@pytest.mark.parametrize("config", CONFIGS)
def test_many_requests_on_a_bad_line_are_answered_and_executed_like_the_twins(config, seed):
    rng = random.Random(seed)
    steps = on_a_bad_line(rng, random_steps(rng, config, 100))
    outcome = session(config, steps, seed, bad=frozenset({64, 256}))
    outcome.check()
    assert {operation for _, operation in outcome.executed} == set(Operation)


def on_a_bad_line(rng: random.Random, steps: list[Step]) -> list[Step]:
    """``steps`` with their bytes corrupted."""
    return [broken for step in steps for broken in (corrupted(rng, step) if isinstance(step, bytes) else [step])]


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_on_a_bad_line_every_frame_has_its_answer_and_nothing_is_executed_twice(seed):
    rng = random.Random(seed)
    steps = on_a_bad_line(rng, random_steps(rng, TEST, 12))
    # Whatever came before: the link is there again, without a reset.
    steps.append(identify(200))
    outcome = session(TEST, steps, seed)
    outcome.check()
    assert outcome.received.endswith(session(TEST, [identify(200)], seed).received)


def test_garbage_of_any_kind_is_survived():
    rng = random.Random(6)
    chunks = [rng.randbytes(600), bytes(50), b"\xff" * 600, b"\x01" * 100, bytes([255, 0] * 20), b"\x02", b"\x00"]
    outcome = session(TEST, [*chunks, identify(1)], 6)
    outcome.check()
    assert outcome.executed == [(1, Operation.IDENTIFY)]


def test_half_a_frame_times_out_and_its_rest_is_skipped():
    frame = request(1, Operation.REGISTER_WRITE, u32(0x100), u32(7))
    steps: list[Step] = [frame[:9], Silence(), frame[9:], Silence(), frame[:-1], frame, request(2, Operation.STATUS)]
    outcome = session(TEST, steps, 7)
    outcome.check()
    assert outcome.hardware.registers.log == [(0x100, 7)]


def test_a_repeat_is_answered_alike_whatever_it_says_and_identify_never_is_one():
    write = request(9, Operation.REGISTER_WRITE, u32(0x100), u32(1))
    steps: list[Step] = [
        write,
        request(9, Operation.REGISTER_WRITE, u32(0x100), u32(2)),
        request(9, Operation.STREAM_SEND, b"\1", bytes(16)),
        identify(9, 1),
        identify(9, 2),
        write,
    ]
    outcome = session(TEST, steps, 8)
    outcome.check()
    # The last repeat is one of IDENTIFY.
    assert outcome.hardware.registers.log == [(0x100, 1)]
    assert outcome.hardware.streams.taken == []


def test_a_repeat_after_frames_that_could_not_be_read_is_answered_by_the_last_response():
    write = request(5, Operation.MEMORY_WRITE, u64(3), b"abcdefghijkl")
    steps: list[Step] = [write, write[:-4] + b"\x09\x00", b"\x00\x03\x01\x00", write, b"\x05\x05", Silence(), write]
    outcome = session(TEST, steps, 9)
    outcome.check()
    assert outcome.executed == [(5, Operation.MEMORY_WRITE)]


@pytest.mark.parametrize("config", CONFIGS)
def test_memory_is_written_and_read_at_any_address_and_length_by_the_rules_of_axi(config):
    bus, steps = config.bus_bytes, []
    for sequence, (offset, length) in enumerate((o, n) for o in (0, bus - 1) for n in (0, 1, bus, 2 * bus + 1)):
        data = bytes(range(1, 1 + length))
        steps.append(request(3 * sequence, Operation.MEMORY_WRITE, u64(0x200 + offset), data))
        steps.append(request(3 * sequence + 1, Operation.MEMORY_READ, u64(0x200 + offset), u16(length)))
        steps.append(request(3 * sequence + 2, Operation.MEMORY_CRC, u64(0x1FF + offset), u32(length + 2)))
    session(config, steps, 10, monitored=True).check()


def test_addresses_that_do_not_exist_are_refused():
    top = 1 << TEST.addr_bits
    steps: list[Step] = []
    for address in (top, top << 1, 1 << 63, (1 << 64) - 1):
        for operation, arguments in (
            (Operation.MEMORY_WRITE, b"data"),
            (Operation.MEMORY_READ, u16(4)),
            (Operation.MEMORY_CRC, u32(4)),
        ):
            steps.append(request(len(steps), operation, u64(address), arguments))
    session(TEST, steps, 11).check()


def test_a_message_longer_than_a_frame_goes_in_pieces_and_a_result_comes_in_pieces():
    message, result = bytes(range(240)), bytes(range(255, 15, -1))
    steps: list[Step] = [
        request(i, Operation.STREAM_SEND, bytes([i == 3]), message[i * 64 : (i + 1) * 64]) for i in range(4)
    ]
    steps.append(Change(lambda world, _: world.streams.answer(result)))
    steps += [request(10 + i, Operation.STREAM_RECEIVE, u16(60)) for i in range(6)]
    outcome = session(TEST, steps, 12)
    outcome.check()
    assert b"".join(beat for beat, _ in outcome.hardware.streams.taken) == message
    assert [last for _, last in outcome.hardware.streams.taken] == [False] * 29 + [True]


def test_an_engine_that_takes_nothing_times_out_and_is_fed_later():
    def willing(value: bool) -> Change:
        return Change(lambda world, _: setattr(world.streams, "willing", value))

    steps: list[Step] = [
        willing(False),
        request(1, Operation.STREAM_SEND, b"\0", bytes(range(32))),
        request(2, Operation.STATUS),
        willing(True),
        request(3, Operation.STREAM_SEND, b"\1", bytes(range(8, 32))),
        willing(False),
        request(4, Operation.STREAM_SEND, b"\1", bytes(8)),
        request(5, Operation.RESET),
        request(6, Operation.STATUS),
        willing(True),
        request(7, Operation.STREAM_SEND, b"\1", bytes(range(8))),
    ]
    outcome = session(TEST, steps, 13)
    outcome.check()
    assert b"".join(beat for beat, _ in outcome.hardware.streams.taken) == bytes(range(32)) + bytes(range(8))


@pytest.mark.parametrize("bus", ["memory", "registers"])
def test_a_silent_bus_times_out_holds_up_only_what_needs_a_bus_and_comes_back(bus):
    def silent(now: bool) -> Change:
        return Change(lambda _, silent: silent.add(bus) if now else silent.discard(bus))

    def requests(first: int) -> list[Step]:
        return [
            request(first, Operation.MEMORY_WRITE, u64(8), bytes(range(20))),
            request(first + 1, Operation.MEMORY_READ, u64(0), u16(30)),
            request(first + 2, Operation.REGISTER_WRITE, u32(0x100), u32(first)),
            request(first + 3, Operation.REGISTER_READ, u32(0x100), u16(2)),
            request(first + 4, Operation.STREAM_SEND, b"\1", bytes(8)),
            request(first + 5, Operation.STREAM_RECEIVE, u16(64)),
            identify(first + 6),
            request(first + 7, Operation.REGISTER_READ, u32(0), u16(1)),
        ]

    reads = [request(1, Operation.MEMORY_READ, u64(0), u16(4)), request(2, Operation.REGISTER_READ, u32(0), u16(1))]
    for first in ([], reads):
        steps: list[Step] = [silent(True), *first, *requests(10), silent(False), *requests(20)]
        outcome = session(TEST, steps, 14, monitored=True)
        assert outcome.received == outcome.expected


@pytest.mark.slow
def test_a_frame_of_full_size_in_both_directions():
    data = random.Random(15).randbytes(DEFAULT_PAYLOAD // 2) + bytes(range(1, 255)) * 4
    data = data[:DEFAULT_PAYLOAD].ljust(DEFAULT_PAYLOAD, b"\1")
    steps: list[Step] = [
        request(1, Operation.MEMORY_WRITE, u64(0), data),
        request(2, Operation.MEMORY_READ, u64(0), u16(DEFAULT_PAYLOAD)),
        request(3, Operation.MEMORY_WRITE, u64(0), data + b"\1"),
        request(4, Operation.MEMORY_READ, u64(0), u16(DEFAULT_PAYLOAD + 1)),
    ]
    session(DEMO, steps, 15, payload_max=DEFAULT_PAYLOAD, idle=0, stall=0).check()


def test_counters_say_what_went_wrong():
    bad = bytearray(request(1, Operation.STATUS))
    bad[2] ^= 4
    steps: list[Step] = [bytes(bad), b"\x00\x02\x01\x00", b"\x00\x05\x01", Silence(), b"\x00", request(1, 77)]
    steps += [request(1, 77), request(2, Operation.STATUS), request(3, Operation.STATUS, b"x")]
    outcome = session(TEST, steps, 16)
    outcome.check()


def test_an_encoded_zero_after_a_full_run_is_kept():
    """254 bytes that are not zero, then a zero; and exactly 254 at the end."""
    for data in (b"\x07" * 239 + b"\0" + b"\x01" * 20, b"\x07" * 600):
        write = request(1, Operation.MEMORY_WRITE, u64(0x0101010101010101 & 0xFFF), data)
        read = request(2, Operation.MEMORY_READ, u64(0x101), u16(len(data)))
        session(TEST, [write, read], 17, payload_max=700, idle=0, stall=0).check()
    assert encode_frame(bytes(250))  # zeros only


MUTANTS = {
    "a repeat is executed again": (executor, [("self._read_before & (self._reader.byte == self._sequence)", "0")]),
    "checksum ignored": (frame_receiver, [("with m.Elif(~crc.intact):", "with m.Elif(0):")]),
    "place not found again": (frame_receiver, [("m.d.sync += [length.eq(0), overlong.eq(0),", "m.d.sync += [")]),
    "strobes of a whole word": (mover, [("strobes.eq(Cat(strobes[1:], self.o_take))", "strobes.eq(~0)")]),
    "end of message forgotten": (mover, [("beat.last.eq(self.ends & ~self.i_more)", "beat.last.eq(0)")]),
    "a beat of a result lost": (
        mover,
        [
            (
                "with m.If(self.i_axis.valid):",
                "m.d.comb += self.i_axis.ready.eq(1)\n                with m.If(self.i_axis.valid):",
            )
        ],
    ),
    "done not counted": (extent, [("done.eq(done + 1)", "done.eq(done)")]),
    "an address that does not exist is cut off": (extent, [("address[-1].eq(1)", "address[-1].eq(0)")]),
    "a list of registers is one register": (register_mover, [("Mux(self.reading, self.done, 0)", "0")]),
    "one byte too many is read": (
        request_reader,
        [("more.eq(following != self.length)", "more.eq(following <= self.length)")],
    ),
    "a request may be short": (request_rules, [("fits.eq(length == REQUEST_HEAD + size)", "fits.eq(1)")]),
    "length of the answer before": (response_writer, [("length.eq(end)", "length.eq(length)")]),
    "no patience with registers": (transfers, [("mover.waiting | registers.waiting", "mover.waiting")]),
}


@pytest.mark.parametrize("name", [None, *MUTANTS])
def test_a_planted_bug_is_caught(name, monkeypatch):
    broken = bytearray(request(3, Operation.MEMORY_WRITE, u64(1), b"x"))
    broken[-3] ^= 1
    steps: list[Step] = [
        request(1, Operation.STREAM_SEND, b"\1", bytes(16)),
        request(1, Operation.STREAM_SEND, b"\1", bytes(16)),
        request(2, Operation.MEMORY_WRITE, u64(3), bytes(12)),
        bytes(broken),
        Change(lambda world, _: world.streams.answer(bytes(range(32)))),
        request(3, Operation.STREAM_RECEIVE, u16(64)),
        request(4, Operation.REGISTER_READ, u32(0xFF8), u16(2)),
        request(5, Operation.MEMORY_READ, u64(1 << TEST.addr_bits), u16(4)),
        request(6, Operation.IDENTIFY, b"\1"),
        Change(lambda _, silent: silent.add("registers")),
        request(7, Operation.REGISTER_READ, u32(0), u16(1)),
    ]
    if name is None:
        session(TEST, steps, 18).check()
        return
    plant(monkeypatch, *MUTANTS[name])
    with pytest.raises((AssertionError, TimeoutError)):
        session(TEST, steps, 18).check()
