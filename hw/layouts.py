"""The payloads that travel between blocks (docs/interfaces.md §3), as shapes that follow an ``EngineConfig``.

The same layouts encode and decode in the tests. Functions return ``data.StructLayout`` objects rather than ``data.Struct``
classes, because every width depends on the configuration.
"""

from amaranth import signed, unsigned
from amaranth.lib import data, enum

from stmoe.model.config import EngineConfig, clog2
from stmoe.model.numerics import SCALE_BITS, SHIFT_BITS, WEIGHT_BITS
from stmoe.model.predictor.stp_config import WORD_BITS, RowsHome
from stmoe.model.predictor.tables import table_images

#: Bits of a prediction's score: CCT votes plus history, saturating.
SCORE_BITS = 8


class BufferOp(enum.Enum, shape=unsigned(4)):
    """Commands of the buffer manager (docs/interfaces.md §3)."""

    PIN = 0
    PROTECT = 1
    ALLOC = 2
    RELEASE = 3
    UNPROTECT = 4
    EVICT = 5
    FLUSH = 6
    CANCEL = 7
    DEMOTE = 8


class LandedStatus(enum.Enum, shape=unsigned(2)):
    """How a fetch ended."""

    OK = 0
    CRC = 1
    AXI = 2
    ABORTED = 3


class Destination(enum.Enum, shape=unsigned(2)):
    """Where the words of a fetch go."""

    BUFFER = 0
    ROUTER = 1
    TABLES = 2
    HIDDEN = 3


class TableCommand(enum.Enum, shape=unsigned(2)):
    """What is done with the predictor's learned tables as a whole (docs/theory.md, "Predictor")."""

    CLEAR = 0
    SAVE = 1
    LOAD = 2


def shape_layout(config: EngineConfig) -> data.StructLayout:
    """Run-time shape of the model: latched at start, stable while running. All derived from registers by the control block.

    ``experts``, ``top_k``, ``layers``, ``shared``: counts. ``row_words`` = d/lanes. ``out_words`` = d/segments.
    ``d_beats`` = x16 bus beats of a token (2·d/bus_bytes). ``chunks``: chunks of an expert. ``chunk_beats``: bus beats of a
    chunk. ``renormalise``: softmax over the top-k. ``routed_scale``: Q4.12.
    """
    return data.StructLayout(
        {
            "experts": clog2(config.experts_max + 1),
            "top_k": clog2(config.top_k_max + 1),
            "layers": clog2(config.layers_max + 1),
            "shared": clog2(config.shared_max + 1),
            "row_words": clog2(config.d_max // config.lanes + 1),
            "out_words": clog2(config.d_max // config.segments + 1),
            "d_beats": clog2(2 * config.d_max // config.bus_bytes + 1),
            "chunks": clog2(config.chunks_max + 1),
            "chunk_beats": clog2(config.frame_words * config.beats_per_word + 1),
            "renormalise": 1,
            "routed_scale": 16,
        }
    )


def expert_ref(config: EngineConfig) -> data.StructLayout:
    """One expert of one layer."""
    return data.StructLayout({"layer": config.layer_bits, "expert": config.expert_bits})


def fetch_beats_bits(config: EngineConfig) -> int:
    """Bits of the beat count of the longest fetch: a chunk, a layer's router image or hidden section, or the learned tables."""
    tables = max(image.fetch_beats for image in table_images(config))
    return clog2(
        max(config.frame_words * config.beats_per_word, config.router_slot_words, hidden_beats(config), tables) + 1
    )


def hidden_beats(config: EngineConfig) -> int:
    """Bus beats of the longest section of a hidden image; 0 without a hidden-state predictor."""
    if not config.hidden_units:
        return 0
    return config.hidden_slot_words * config.hidden_word_bytes // config.bus_bytes


def fetch_place_bits(config: EngineConfig) -> int:
    """Bits of where a fetch goes: a frame, or a slot of the router's, the hidden-state predictor's or the rows' memory."""
    hidden = clog2(config.hidden_slots) if config.hidden_units else 0
    rows = row_slot_bits(config) if config.stp_rows is RowsHome.DRAM else 0
    return max(config.frame_bits, clog2(config.router_slots), hidden, rows)


def row_slot_bits(config: EngineConfig) -> int:
    """Bits of a slot of the buffer for rows in DRAM: two lists of as many rows as a prediction reads."""
    return clog2(config.stp_fitted.reads(config.top_k_max)) + 1


def fetch_request(config: EngineConfig) -> data.StructLayout:
    """One contiguous read: a chunk into a frame, a router image into a slot of the router memory, or the learned tables.

    ``address`` is a multiple of bus_bytes. ``frame`` is the frame number, or the router slot. ``seed``: docs/interfaces.md §1.
    """
    return data.StructLayout(
        {
            "address": config.addr_bits,
            "beats": fetch_beats_bits(config),
            "seed": 32,
            "destination": Destination,
            "frame": fetch_place_bits(config),
            "ref": expert_ref(config),
        }
    )


def landed(config: EngineConfig) -> data.StructLayout:
    """A fetch has ended: its last beat was written and checked (``OK``), or not (``CRC``, ``AXI``, ``ABORTED``)."""
    return data.StructLayout(
        {
            "status": LandedStatus,
            "prefetch": 1,
            "destination": Destination,
            "frame": fetch_place_bits(config),
            "ref": expert_ref(config),
        }
    )


def buffer_write(config: EngineConfig) -> data.StructLayout:
    """Event: one word for the expert buffer. ``address`` is the word address within the bank."""
    return data.StructLayout(
        {
            "valid": 1,
            "bank": max(1, config.bank_bits),
            "address": config.frame_addr_bits,
            "data": 8 * config.lanes,
        }
    )


def router_write(config: EngineConfig) -> data.StructLayout:
    """Event: one bus word of a router image. ``word`` counts from 0 (the head) within the image."""
    return data.StructLayout(
        {
            "valid": 1,
            "slot": clog2(config.router_slots),
            "word": clog2(config.router_slot_words),
            "data": 8 * config.bus_bytes,
        }
    )


def hidden_write(config: EngineConfig) -> data.StructLayout:
    """Event: one bus word of a section of a hidden image. ``word`` counts bus words from 0 (the head) within the section."""
    return data.StructLayout(
        {
            "valid": 1,
            "slot": clog2(config.hidden_slots),
            "word": clog2(max(2, hidden_beats(config))),
            "data": 8 * config.bus_bytes,
        }
    )


def table_write(config: EngineConfig) -> data.StructLayout:
    """Event: one bus word of learned tables in DRAM. ``word`` counts from 0 (the head) within the fetch, ``place`` is the fetch's."""
    return data.StructLayout(
        {
            "valid": 1,
            "place": fetch_place_bits(config),
            "word": fetch_beats_bits(config),
            "data": 8 * config.bus_bytes,
        }
    )


def table_row(config: EngineConfig):
    """A row on its way between predictor and DRAM: as wide as those of the wider ``Table``; the other's end with zeros."""
    return unsigned(max(image.row_bits for image in table_images(config)))


def router_start(config: EngineConfig) -> data.StructLayout:
    """Route the token in the x16 memory by the router weights in ``slot`` of the router memory."""
    return data.StructLayout({"slot": clog2(config.router_slots)})


def selected(config: EngineConfig) -> data.StructLayout:
    """The routed experts of a token in rank order; ``count`` of them are meant."""
    return data.StructLayout(
        {"count": clog2(config.top_k_max + 1), "ids": data.ArrayLayout(config.expert_bits, config.top_k_max)}
    )


def external_routing(config: EngineConfig) -> data.StructLayout:
    """A routing decision from outside (kind 2 of docs/interfaces.md §2): ``selected`` and its weights."""
    return data.StructLayout({"selected": selected(config), "weights": weights(config)})


def router_weights(config: EngineConfig) -> data.StructLayout:
    """Level: the weights of the routed experts in slot order, meant while ``valid``."""
    return data.StructLayout({"valid": 1, "values": weights(config)})


def buffer_command(config: EngineConfig) -> data.StructLayout:
    """A command to the buffer manager."""
    return data.StructLayout({"op": BufferOp, "ref": expert_ref(config), "slot": config.slot_bits})


def buffer_response(config: EngineConfig) -> data.StructLayout:
    """The answer to a command, one for each, in order. ``count``/``pending`` for PIN and PROTECT; the rest for ALLOC."""
    return data.StructLayout(
        {
            "ok": 1,
            "frame": config.frame_bits,
            "chunk": config.chunk_bits,
            "count": clog2(config.chunks_max + 1),
            "pending": clog2(config.chunks_max + 1),
        }
    )


def ready_chunk(config: EngineConfig) -> data.StructLayout:
    """A landed chunk of a selected expert."""
    return data.StructLayout({"slot": config.slot_bits, "frame": config.frame_bits})


def chunk_job(config: EngineConfig) -> data.StructLayout:
    """A chunk for one tile: ``address`` is the first word within ``bank``."""
    return data.StructLayout(
        {
            "slot": config.slot_bits,
            "bank": max(1, config.bank_bits),
            "address": config.frame_addr_bits,
        }
    )


def expert_scale() -> data.StructLayout:
    """(mo, so) of an expert."""
    return data.StructLayout({"m": SCALE_BITS, "s": SHIFT_BITS})


def unit_scales() -> data.StructLayout:
    """The 64-bit row of one hidden unit (docs/interfaces.md §1)."""
    return data.StructLayout(
        {
            "mg": SCALE_BITS,
            "mu": SCALE_BITS,
            "mh": SCALE_BITS,
            "sg": SHIFT_BITS,
            "su": SHIFT_BITS,
            "sh": SHIFT_BITS,
            "zero": 1,
        }
    )


def routed(config: EngineConfig) -> data.StructLayout:
    """A verified routing decision: the top-k ids of ``layer`` in rank order; ``count`` of them are meant.

    ``sequence``, ``token`` and ``word`` are the message's; shared experts are not listed.
    """
    return data.StructLayout(
        {
            "layer": config.layer_bits,
            "sequence": 32,
            "token": 32,
            "word": WORD_BITS,
            "count": clog2(config.top_k_max + 1),
            "ids": data.ArrayLayout(config.expert_bits, config.top_k_max),
        }
    )


def announcement() -> data.StructLayout:
    """The word of a token, before its first layer."""
    return data.StructLayout({"sequence": 32, "token": 32, "word": WORD_BITS})


def state(config: EngineConfig) -> data.StructLayout:
    """A state message is in: the residual before the attention of ``layer`` (docs/interfaces.md §2, kind 5)."""
    return data.StructLayout({"layer": config.layer_bits, "exponent": signed(8), "sequence": 32, "token": 32})


def score_event(config: EngineConfig) -> data.StructLayout:
    """Event: the score of one expert, experts in rising order from 0; ``last`` with the layer's last expert."""
    return data.StructLayout({"valid": 1, "last": 1, "expert": clog2(config.experts_max), "score": SCORE_BITS})


def target_layout(config: EngineConfig) -> data.StructLayout:
    """Whom a prediction is about: a layer of a token of a sequence."""
    return data.StructLayout({"layer": config.layer_bits, "sequence": 32, "token": 32})


def weights(config: EngineConfig) -> data.ArrayLayout:
    """Router weights in slot order, Q.15 (routed experts only)."""
    return data.ArrayLayout(WEIGHT_BITS, config.top_k_max)


def prediction(config: EngineConfig) -> data.StructLayout:
    """One predicted expert of ``ref.layer``. A prediction is a run of these ending with ``last``; ``none`` marks an empty run."""
    return data.StructLayout({"ref": expert_ref(config), "score": SCORE_BITS, "none": 1, "last": 1})


def token_layout(config: EngineConfig) -> data.StructLayout:
    """What the header of an activation message says (docs/interfaces.md §2); ``external``: routing came with it."""
    return data.StructLayout(
        {
            "layer": config.layer_bits,
            "exponent": signed(8),
            "sequence": 32,
            "token": 32,
            "word": WORD_BITS,
            "external": 1,
        }
    )


def x_write(config: EngineConfig) -> data.StructLayout:
    """Event: one bus beat of x16; ``address`` is its number within the token."""
    return data.StructLayout(
        {"valid": 1, "address": clog2(2 * config.d_max // config.bus_bytes), "data": 8 * config.bus_bytes}
    )


def cct_row(config: EngineConfig) -> data.ArrayLayout:
    """A row of the cross-layer correlation table: ``cct_ways`` successors; ``confidence`` 0 is a dead entry."""
    entry = data.StructLayout({"expert": clog2(config.experts_max), "confidence": config.cct_counter_bits})
    return data.ArrayLayout(entry, config.cct_ways)


def predictor_params(config: EngineConfig) -> data.StructLayout:
    """Run-time parameters of the ST-MoE predictor (docs/theory.md, "Predictor"); stable while it is busy.

    ``use_cct``, ``use_history``: which table's votes count. ``vote_confidence``: an entry votes with its confidence (1) or
    with 1 (0). ``history_weight``: vote of the history table. ``threshold``: least score of a predicted expert.
    ``step_up``, ``step_down``, ``initial``, ``counter_max``: learning of a confidence.
    """
    return data.StructLayout(
        {
            "use_cct": 1,
            "use_history": 1,
            "vote_confidence": 1,
            "history_weight": SCORE_BITS,
            "threshold": SCORE_BITS,
            "step_up": config.cct_counter_bits,
            "step_down": config.cct_counter_bits,
            "initial": config.cct_counter_bits,
            "counter_max": config.cct_counter_bits,
        }
    )


def selected_expert(config: EngineConfig) -> data.StructLayout:
    """A selected expert for the demand loader: ``count`` of its chunks are in the buffer or on their way."""
    return data.StructLayout(
        {"ref": expert_ref(config), "slot": config.slot_bits, "count": clog2(config.chunks_max + 1)}
    )
