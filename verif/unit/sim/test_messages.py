"""Stream messages: bytes as docs/interfaces.md says, round trips, and malformed ones refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmoe.model.predictor.stp_config import WORD_BITS
from stmoe.sim.messages import Activations, Announcement, Header, Hint, Kind, MessageError, Result, State

BUS = st.sampled_from([8, 16, 32, 64])
WORDS = st.integers(0, 2**32 - 1)
EXPERTS = st.integers(0, 4095)


def entries(value_bits: int, least: int):
    pair = st.tuples(EXPERTS, st.integers(0, 2**value_bits - 1))
    return st.lists(pair, min_size=least, max_size=20).map(
        lambda pairs: (tuple(e for e, _ in pairs), tuple(v for _, v in pairs))
    )


def vectors(bits: int):
    limit = 2 ** (bits - 1)
    return st.lists(st.integers(-limit, limit - 1), min_size=1, max_size=70).map(np.array)


@settings(deadline=None, max_examples=50)
@given(BUS, st.integers(0, 255), st.integers(-128, 127), WORDS, WORDS, vectors(16), entries(20, 0))
def test_activations_round_trip(bus, layer, exponent, sequence, token, x16, routing):
    sent = Activations(layer, exponent, sequence, token, x16, *routing)
    data = sent.encode(bus)
    assert len(data) % bus == 0
    got = Activations.decode(data, bus, len(x16))
    assert np.array_equal(got.x16, x16)
    assert (got.layer, got.exponent, got.sequence, got.token) == (layer, exponent, sequence, token)
    assert (got.ids, got.weights) == routing
    assert data[0] == (2 if routing[0] else 1)


@settings(deadline=None, max_examples=50)
@given(BUS, WORDS, WORDS, st.integers(0, 2**WORD_BITS - 1))
def test_words_round_trip_announced_or_with_activations(bus, sequence, token, word):
    sent = Announcement(sequence, token, word)
    assert Announcement.decode(sent.encode(bus), bus) == sent
    data = Activations(1, 0, sequence, token, np.zeros(32, np.int64), word=word).encode(bus)
    assert Activations.decode(data, bus, 32).word == word
    assert data[12:16] == word.to_bytes(4, "little")


def test_a_word_that_does_not_fit_or_does_not_belong_is_refused():
    with pytest.raises(MessageError, match=f"word {1 << WORD_BITS}"):
        Announcement(0, 0, 1 << WORD_BITS).encode(16)
    hint = bytearray(Hint(0, 0, 0, (1,), (1,)).encode(16))
    hint[12] = 1
    with pytest.raises(MessageError, match="no word"):
        Hint.decode(bytes(hint), 16)
    for place in (1, 3):
        data = bytearray(Announcement(1, 2, 3).encode(16))
        data[place] = 1
        with pytest.raises(MessageError, match="a word for layer"):
            Announcement.decode(bytes(data), 16)


@settings(deadline=None, max_examples=50)
@given(BUS, st.integers(0, 255), st.integers(-128, 127), WORDS, WORDS, vectors(16))
def test_states_round_trip(bus, layer, exponent, sequence, token, x16):
    data = State(layer, exponent, sequence, token, x16).encode(bus)
    got = State.decode(data, bus, len(x16))
    assert np.array_equal(got.x16, x16)
    assert (got.layer, got.exponent, got.sequence, got.token) == (layer, exponent, sequence, token)
    assert len(data) % bus == 0
    assert (data[0], data[3], data[12:16]) == (5, 0, bytes(4))


def test_a_state_that_is_malformed_is_refused():
    good = State(1, 2, 3, 4, np.arange(8)).encode(16)
    for place, match in ((3, "a state with 1 entries"), (12, "no word"), (0, "kind 0x1, expected 0x5")):
        data = bytearray(good)
        data[place] = 1
        with pytest.raises(MessageError, match=match):
            State.decode(bytes(data), 16, 8)
    with pytest.raises(MessageError, match="ends in its vector"):
        State.decode(good[:-16], 16, 8)
    with pytest.raises(MessageError, match="after the end"):
        State.decode(good + bytes(16), 16, 8)
    with pytest.raises(MessageError, match="do not fit 16 bits"):
        State(0, 0, 0, 0, np.array([40000])).encode(16)


@settings(deadline=None, max_examples=50)
@given(BUS, st.integers(0, 255), WORDS, WORDS, entries(8, 0))
def test_hints_round_trip(bus, layer, sequence, token, hints):
    sent = Hint(layer, sequence, token, *hints)
    assert Hint.decode(sent.encode(bus), bus) == sent


@settings(deadline=None, max_examples=50)
@given(BUS, st.integers(0, 255), st.integers(-128, 127), WORDS, WORDS, vectors(32), entries(20, 1))
def test_results_round_trip(bus, layer, exponent, sequence, token, y, routing):
    ids, weights = routing
    sent = Result(layer, exponent, sequence, token, ids, weights, y)
    got = Result.decode(sent.encode(bus), bus, len(y))
    assert np.array_equal(got.y, y)
    assert (got.layer, got.sequence, got.token, got.ids, got.weights) == (layer, sequence, token, *routing)


def test_bytes_are_those_of_the_page():
    x16 = np.array([1, -2, 3, -4] * 4)
    data = Activations(3, -5, 0x01020304, 0x0A0B0C0D, x16, (7, 31), (0x8000, 5)).encode(16)
    assert data[:16].hex() == "0203fb02040302010d0c0b0a00000000"
    assert data[16:32].hex() == "070000081f500000" + 8 * "00"
    assert data[32:40].hex() == "0100feff0300fcff"
    assert len(data) == 16 + 16 + 32
    hint = Hint(1, 0, 0, (0x123,), (0xAB,)).encode(32)
    assert hint[0] == Kind.HINT
    assert hint[32:36] == (0x123 | 0xAB << 12).to_bytes(4, "little")
    assert len(hint) == 64


def good() -> bytearray:
    return bytearray(Result(1, 0, 2, 3, (4, 5), (6, 7), np.arange(8)).encode(16))


def test_malformed_results_are_refused_by_name():
    assert Result.decode(bytes(good()), 16, 8).ids == (4, 5)

    def refused(data: bytes, match: str, d_model: int = 8):
        with pytest.raises(MessageError, match=match):
            Result.decode(bytes(data), 16, d_model)

    refused(b"", "0 bytes are no header")
    refused(good()[:-16], "ends in its vector")
    refused(good()[:20], "ends in its entries")
    refused(good() + bytes(16), "16 bytes after the end")
    refused(good(), "after the end", d_model=4)
    for position, match in ((0, "unknown kind 0x7f"), (12, "bytes 12 to 15"), (24, "entries is not padded")):
        data = good()
        data[position] = 0x7F
        refused(data, match)
    data = good()
    data[0] = Kind.HINT
    refused(data, "kind 0x3, expected 0x81")
    hint = bytearray(Hint(0, 0, 0, (1,), (1,)).encode(16))
    hint[19] = 1
    with pytest.raises(MessageError, match="bits beyond"):
        Hint.decode(bytes(hint), 16)
    activations = bytearray(Activations(0, 0, 0, 0, np.zeros(8, np.int64), (1,), (1,)).encode(16))
    activations[0] = Kind.ACTIVATIONS
    with pytest.raises(MessageError, match="routing of 1 entries"):
        Activations.decode(bytes(activations), 16, 8)


def test_values_that_do_not_fit_are_refused_before_they_are_sent():
    x16 = np.zeros(8, np.int64)
    with pytest.raises(MessageError, match="do not fit 16 bits"):
        Activations(0, 0, 0, 0, x16 + 40000).encode(16)
    with pytest.raises(MessageError, match="expert 4096"):
        Hint(0, 0, 0, (4096,), (1,)).encode(16)
    with pytest.raises(MessageError, match="value 256"):
        Hint(0, 0, 0, (1,), (256,)).encode(16)
    with pytest.raises(MessageError, match="2 experts with 1 values"):
        Activations(0, 0, 0, 0, x16, (1, 2), (1,)).encode(16)
    with pytest.raises(MessageError, match="layer=256"):
        Header(Kind.HINT, 256, 0, 0, 0, 0).encode(16)
