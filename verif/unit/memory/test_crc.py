"""CRC-32C: the twin against the literature and two other implementations, the gateware against the twin."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

import random

import pytest
from amaranth.lib.crc import catalog
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.hw.memory.crc import INITIAL, Crc32cUpdate, update_rows
from stmoe.model.crc import chunk_crc, chunk_seed, crc32c, crc32c_table, router_seed, sealed

# RFC 3720, appendix B.4.
VECTORS = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283),
]


@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_published_vectors(data, crc):
    assert crc32c_table(data) == crc
    assert crc32c(data) == crc


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_table_package_and_amaranth_agree(data):
    assert crc32c_table(data) == crc32c(data) == catalog.CRC32_ISCSI(8).compute(data)


def rows_crc(rows: list[int], data: bytes, size: int) -> int:
    state = INITIAL
    for i in range(0, len(data), size):
        value = state | int.from_bytes(data[i : i + size], "little") << 32
        state = sum(((row & value).bit_count() & 1) << i for i, row in enumerate(rows))
    return state ^ 0xFFFFFFFF


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([8, 16, 32, 64]), st.integers(1, 6), st.randoms(use_true_random=False))
def test_matrix_of_every_bus_width_equals_the_twin(size, words, rng):
    data = rng.randbytes(size * words)
    assert rows_crc(update_rows(8 * size), data, size) == crc32c_table(data)


def test_a_flipped_tap_is_caught():
    rows = update_rows(64)
    rows[7] ^= 1 << 32
    data = bytes(range(1, 65))
    assert rows_crc(rows, data, 8) != crc32c_table(data)


@pytest.mark.parametrize("size", [8, 16, 64])
def test_gateware_equals_the_twin(size):
    rng = random.Random(size)
    dut = Crc32cUpdate(size)

    async def bench(ctx):
        for words in (1, 2, 9):
            data = rng.randbytes(words * size)
            state = INITIAL
            for i in range(words):
                ctx.set(dut.state, state)
                ctx.set(dut.data, int.from_bytes(data[i * size : (i + 1) * size], "little"))
                state = ctx.get(dut.next)
            assert state ^ 0xFFFFFFFF == crc32c_table(data)

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()


def test_a_chunk_in_the_place_of_another_never_passes():
    chunk = sealed(chunk_seed(0xABCD1234, 3, 17, 5), bytes(range(256)))
    stored = int.from_bytes(chunk[:4], "little")
    assert chunk_crc(chunk_seed(0xABCD1234, 3, 17, 5), chunk) == stored
    elsewhere = [chunk_seed(0xABCD1234, layer, e, c) for layer, e, c in ((2, 17, 5), (3, 16, 5), (3, 17, 4))]
    elsewhere += [chunk_seed(0xABCD1235, 3, 17, 5), router_seed(0xABCD1234, 3)]
    assert all(chunk_crc(seed, chunk) != stored for seed in elsewhere)
