"""COBS, checksums, and the numbers of the protocol in Python."""

import random

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.fpga.link.baud import Baud
from stmoe.fpga.link.crc import RESIDUE, state_after
from stmoe.fpga.link.frames import FrameError, cobs_decode, cobs_encode, decode_frame, encode_frame
from stmoe.fpga.link.protocol import build_id
from stmoe.model.presets import PRESETS

#: The examples of Cheshire and Baker's paper as the literature repeats them.
VECTORS = [
    (b"", b"\x01"),
    (b"\x00", b"\x01\x01"),
    (b"\x00\x00", b"\x01\x01\x01"),
    (b"\x00\x11\x00", b"\x01\x02\x11\x01"),
    (b"\x11\x22\x00\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
    (b"\x11\x00\x00\x00", b"\x02\x11\x01\x01\x01"),
    (bytes(range(1, 255)), b"\xff" + bytes(range(1, 255))),
    (bytes(range(256)), b"\x01\xff" + bytes(range(1, 255)) + b"\x02\xff"),
    (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\x02\xff"),
    (bytes(range(2, 256)) + b"\0", b"\xff" + bytes(range(2, 256)) + b"\x01\x01"),
]


@pytest.mark.parametrize(("data", "encoded"), VECTORS)
def test_cobs_encodes_the_known_examples(data, encoded):
    assert cobs_encode(data) == encoded
    assert cobs_decode(encoded) == data


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 300)), max_size=6))
def test_frames_come_back_and_have_no_delimiter_within(runs):
    body = b"".join(bytes([value]) * count for value, count in runs)
    frame = encode_frame(body)
    assert frame.index(0) == len(frame) - 1
    assert len(frame) <= len(body) + 4 + (len(body) + 4) // 254 + 2
    assert decode_frame(frame[:-1]) == body


def test_a_changed_frame_is_refused():
    frame = encode_frame(b"registers and memory")[:-1]
    rng = random.Random(1)
    for _ in range(100):
        broken = bytearray(frame)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        if 0 in broken:
            continue
        with pytest.raises(FrameError):
            decode_frame(bytes(broken))


def test_the_residue_says_that_a_checksum_followed_its_data():
    for data in (b"", b"a", bytes(100)):
        assert state_after(data) ^ 0xFFFFFFFF == crc32c(data)
        assert state_after(data + crc32c(data).to_bytes(4, "little")) == RESIDUE


@pytest.mark.parametrize("clock_hz", [48_000_000, 75_000_000, 80_000_000, 100_000_000])
@pytest.mark.parametrize("baud", [9600, 115_200, 1_000_000, 2_000_000, 3_000_000])
def test_rates_are_off_by_less_than_a_twentieth_of_a_percent(clock_hz, baud):
    assert abs(Baud(clock_hz, baud).error) < 0.0005


def test_a_rate_too_fast_for_the_clock_is_refused():
    with pytest.raises(ValueError, match="a clock of 16000000 Hz allows 1000000"):
        Baud(16_000_000, 1_000_001)
    with pytest.raises(ValueError, match="baud = 0"):
        Baud(16_000_000, 0)


def test_builds_are_told_apart_by_everything_but_their_name():
    assert len({build_id(config) for config, _ in PRESETS.values()}) == len(PRESETS)
