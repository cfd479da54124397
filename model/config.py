"""The one configuration object of stmoe.

``EngineConfig`` fixes what is generated (maxima, widths, memories); ``ModelShape`` (``shape.py``) says which model runs on it, and is
written to registers at run time, up to the generated maxima. Hardware, golden model, simulator, register map and docs
read these two and nothing else. Derived values are properties; an illegal combination raises ``ValueError`` naming it.
"""

import dataclasses
import json
from dataclasses import dataclass

from stmoe.model.predictor.stp_config import LEAN, RowsHome, StpConfig
from stmoe.model.shape import MAX_EXPERTS, MAX_LAYERS, ModelShape, require

MAX_CHUNKS = 4096
#: Bytes of one 64-bit row of per-unit scales (gate, up and hidden multiplier and shift), docs/numerics.md §3.
UNIT_SCALE_BYTES = 8
#: Bytes at the start of a chunk: CRC-32C, output scale, reserved (docs/interfaces.md, "Expert image").
CHUNK_HEAD_BYTES = 16


def clog2(n: int) -> int:
    """Bits that count ``n`` different values (at least 1)."""
    return max(1, (n - 1).bit_length())


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What is generated. Every field is keyword-only; see docs/theory.md for the block each one shapes.

    Attributes
    ----------
    name : preset name, for messages and file headers.
    experts_max, top_k_max, layers_max, d_max, d_ff_max, shared_max : largest model the build can be set to.
    bus_bytes : width of the AXI data bus and of the activation streams, in bytes (8, 16, 32 or 64).
    lanes : int8 multipliers of one compute tile = bytes of one word of the expert buffer; bus_bytes times 1, 2 or 4.
    tiles : compute tiles.
    banks : banks of the expert buffer (a power of two, at least ``tiles``); a bank feeds one tile at a time.
    frames : chunks the expert buffer has room for, a multiple of ``banks``.
    block_words : words of one memory, of those that a bank of the expert buffer and the router weights are made of; a power of two.
    chunk_units : hidden units in one chunk (F), a power of two, at least twice ``group_units``.
    group_units : hidden units reduced together in the down projection; a power of two dividing ``lanes``.
    router_slots : layers whose router weights fit on chip: all (layers_max), or a power of two.
    cct_ways : successors kept in one row of the cross-layer correlation table (K of the paper).
    cct_counter_bits : width of the saturating confidence of a CCT entry (2 in the paper).
    demand_bursts, prefetch_bursts : outstanding AXI read bursts of either class.
    burst_bytes : longest AXI burst, a power of two, at most 1024.
    addr_bits : width of AXI addresses.
    stp : rows of the spatio-temporal perceptron, before they are fitted to the maxima (``stp_fitted``).
    stp_rows : where they live.
    stp_lanes : experts of a row that are added or learned in one cycle: experts_max divided by a power of two; 0 for all.
    hidden_units : most units of a ranker on hidden states (U); 0 leaves the hidden-state predictor out.
    hidden_lanes : its multipliers (M), a power of two, at least what a bus word holds of int16.
    hidden_slots : layers whose sections of the hidden image fit on chip: all (layers_max), or a power of two.
    """

    name: str = "custom"
    experts_max: int = 32
    top_k_max: int = 4
    layers_max: int = 6
    d_max: int = 192
    d_ff_max: int = 96
    shared_max: int = 0
    bus_bytes: int = 16
    lanes: int = 16
    tiles: int = 2
    banks: int = 4
    frames: int = 192
    block_words: int = 16384
    chunk_units: int = 8
    group_units: int = 4
    router_slots: int = 6
    cct_ways: int = 8
    cct_counter_bits: int = 4
    demand_bursts: int = 8
    prefetch_bursts: int = 2
    burst_bytes: int = 1024
    addr_bits: int = 32
    stp: StpConfig = LEAN
    stp_rows: RowsHome = RowsHome.CHIP
    stp_lanes: int = 0
    hidden_units: int = 0
    hidden_lanes: int = 32
    hidden_slots: int = 6

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("name", "shared_max", "stp", "stp_rows", "stp_lanes", "hidden_units"):
                require(
                    isinstance(value, int) and value >= 1, f"{field.name} = {value!r}: must be an integer of at least 1"
                )
        require(self.shared_max >= 0, f"shared_max = {self.shared_max}: must not be negative")
        require(self.bus_bytes in (8, 16, 32, 64), f"bus_bytes = {self.bus_bytes}: must be 8, 16, 32 or 64")
        require(
            self.lanes in (self.bus_bytes, 2 * self.bus_bytes, 4 * self.bus_bytes),
            f"lanes = {self.lanes}: must be 1, 2 or 4 times bus_bytes = {self.bus_bytes}",
        )
        require(self.top_k_max <= self.experts_max, f"top_k_max = {self.top_k_max} > experts_max = {self.experts_max}")
        require(self.layers_max <= MAX_LAYERS, f"layers_max = {self.layers_max}: at most {MAX_LAYERS}")
        require(self.experts_total_max <= MAX_EXPERTS, f"experts_max = {self.experts_max}: at most {MAX_EXPERTS}")
        require(self.banks & (self.banks - 1) == 0, f"banks = {self.banks}: must be a power of two")
        require(self.banks >= self.tiles, f"banks = {self.banks} < tiles = {self.tiles}")
        require(
            self.block_words & (self.block_words - 1) == 0, f"block_words = {self.block_words}: must be a power of two"
        )
        require(self.frames % self.banks == 0, f"frames = {self.frames}: must be a multiple of banks = {self.banks}")
        require(
            self.group_units & (self.group_units - 1) == 0 and self.lanes % self.group_units == 0,
            f"group_units = {self.group_units}: must be a power of two dividing lanes = {self.lanes}",
        )
        require(
            self.chunk_units & (self.chunk_units - 1) == 0 and self.chunk_units >= 2 * self.group_units,
            f"chunk_units = {self.chunk_units}: must be a power of two, at least twice group_units = {self.group_units}",
        )
        require(self.d_max % self.lanes == 0, f"d_max = {self.d_max}: must be a multiple of lanes = {self.lanes}")
        require(
            self.d_ff_max % self.chunk_units == 0,
            f"d_ff_max = {self.d_ff_max}: must be a multiple of chunk_units = {self.chunk_units}",
        )
        require(self.chunks_max <= MAX_CHUNKS, f"chunks of an expert = {self.chunks_max}: at most {MAX_CHUNKS}")
        require(
            self.frames >= (self.slots_max + 1) * self.chunks_max,
            f"frames = {self.frames}: the experts of one token and one more need "
            f"{(self.slots_max + 1) * self.chunks_max} (slots {self.slots_max} x chunks {self.chunks_max})",
        )
        require(self.router_slots <= self.layers_max, f"router_slots = {self.router_slots} > layers_max")
        require(
            self.router_slots >= 2 or self.layers_max == 1, f"router_slots = {self.router_slots}: must be at least 2"
        )
        require(
            self.router_slots == self.layers_max or self.router_slots & (self.router_slots - 1) == 0,
            f"router_slots = {self.router_slots}: must be layers_max = {self.layers_max} or a power of two",
        )
        require(
            0 <= self.hidden_units < 1 << 15 and self.hidden_units % self.hidden_lanes == 0,
            f"hidden_units = {self.hidden_units}: must be a multiple of hidden_lanes = {self.hidden_lanes} below 2^15, or 0",
        )
        require(
            self.hidden_lanes & (self.hidden_lanes - 1) == 0 and 2 * self.hidden_lanes >= self.bus_bytes,
            f"hidden_lanes = {self.hidden_lanes}: must be a power of two, at least bus_bytes / 2 = {self.bus_bytes // 2}",
        )
        require(
            not self.hidden_units
            or self.hidden_slots == self.layers_max
            or (2 <= self.hidden_slots < self.layers_max and self.hidden_slots & (self.hidden_slots - 1) == 0),
            f"hidden_slots = {self.hidden_slots}: must be layers_max = {self.layers_max} or a power of two below",
        )
        require(
            0 <= self.stp_lanes <= self.experts_max
            and self.experts_max % self.stp_slice == 0
            and self.stp_slices & (self.stp_slices - 1) == 0,
            f"stp_lanes = {self.stp_lanes}: must be experts_max = {self.experts_max} divided by a power of two, or 0",
        )
        require(
            self.stp_rows is RowsHome.CHIP or self.stp_slices == 1,
            f"stp_lanes = {self.stp_lanes}: rows in DRAM are taken whole, so it must be 0 there",
        )
        require(2 <= self.cct_counter_bits <= 6, f"cct_counter_bits = {self.cct_counter_bits}: must be 2 to 6")
        require(
            self.burst_bytes & (self.burst_bytes - 1) == 0 and self.bus_bytes <= self.burst_bytes <= 1024,
            f"burst_bytes = {self.burst_bytes}: must be a power of two from bus_bytes to 1024",
        )
        require(self.burst_bytes // self.bus_bytes <= 256, f"burst_bytes = {self.burst_bytes}: over 256 beats")
        require(16 <= self.addr_bits <= 64, f"addr_bits = {self.addr_bits}: must be 16 to 64")

    # Model-side maxima.
    @property
    def prefetch_queue(self) -> int:
        """Experts of a prediction that are ranked and held: each has a row."""
        return self.experts_max

    @property
    def experts_total_max(self) -> int:
        """Routed and shared experts of a layer."""
        return self.experts_max + self.shared_max

    @property
    def slots_max(self) -> int:
        """Experts executed for one token in one layer, at most."""
        return self.top_k_max + self.shared_max

    @property
    def chunks_max(self) -> int:
        """Chunks of one expert, at most."""
        return self.d_ff_max // self.chunk_units

    @property
    def stp_fitted(self) -> StpConfig:
        """The rows of the perceptron that a model of the maxima can use."""
        return self.stp.fitted(self.layers_max, self.experts_max, self.top_k_max)

    @property
    def stp_slice(self) -> int:
        """Experts of a row that the perceptron adds or moves in one cycle."""
        return self.stp_lanes or self.experts_max

    @property
    def stp_slices(self) -> int:
        """Slices of a row."""
        return self.experts_max // self.stp_slice

    # Words and memories.
    @property
    def segments(self) -> int:
        """Outputs of the down projection that one tile produces in a cycle (S)."""
        return self.lanes // self.group_units

    @property
    def beats_per_word(self) -> int:
        """AXI beats that make one buffer word."""
        return self.lanes // self.bus_bytes

    @property
    def meta_bytes(self) -> int:
        """Bytes of head and scales in front of a chunk's weights, padded to whole words."""
        raw = CHUNK_HEAD_BYTES + UNIT_SCALE_BYTES * self.chunk_units
        return -(-raw // self.lanes) * self.lanes

    @property
    def meta_words(self) -> int:
        """Buffer words of head and scales in a chunk."""
        return self.meta_bytes // self.lanes

    @property
    def frame_words(self) -> int:
        """Buffer words of one frame: the largest chunk."""
        return self.chunk_bytes(self.d_max) // self.lanes

    @property
    def frames_per_bank(self) -> int:
        """Frames in one bank; frame f lies in bank f mod banks."""
        return self.frames // self.banks

    @property
    def buffer_bytes(self) -> int:
        """Bytes of the expert buffer."""
        return self.frames * self.frame_words * self.lanes

    @property
    def router_lanes(self) -> int:
        """int16 multipliers of the router: what one bus word holds."""
        return self.bus_bytes // 2

    @property
    def nodes_max(self) -> int:
        """Rows of the expert table: layers x experts of a layer."""
        return self.layers_max * self.experts_total_max

    @property
    def router_head_bytes(self) -> int:
        """Bytes in front of a layer's router weights, whole bus words."""
        return max(CHUNK_HEAD_BYTES, self.bus_bytes)

    @property
    def router_slot_words(self) -> int:
        """Bus words of one slot of the router's weight memory, head included."""
        return (self.router_head_bytes + 2 * self.experts_max * self.d_max) // self.bus_bytes

    # The hidden-state predictor (docs/predictors.md, "In hardware").
    @property
    def hidden_word_bytes(self) -> int:
        """Bytes of a word of a section: an int16 or two int8 a multiplier."""
        return 2 * self.hidden_lanes

    @property
    def hidden_head_words(self) -> int:
        """Words of a section's head: whole bus words too."""
        return max(1, self.bus_bytes // self.hidden_word_bytes)

    @property
    def hidden_slot_words(self) -> int:
        """Words of the longest section: a ranker on two signals, or a gate with default vectors."""
        lanes, half = self.hidden_lanes, self.hidden_lanes // 2
        groups, units, experts = -(-self.d_max // lanes), self.hidden_units, self.experts_max
        first = -(-units // half) + 2 * units * -(-groups // 2)
        second = -(-experts // half) + experts * (units // lanes)
        gate = experts * (groups + -(-experts // lanes))
        return self.hidden_head_words + max(first + second, gate)

    # Bit widths.
    @property
    def layer_bits(self) -> int:
        """Bits of a layer number."""
        return clog2(self.layers_max)

    @property
    def expert_bits(self) -> int:
        """Bits of an expert number within a layer."""
        return clog2(self.experts_total_max)

    @property
    def slot_bits(self) -> int:
        """Bits of a slot: which of the token's experts."""
        return clog2(self.slots_max)

    @property
    def chunk_bits(self) -> int:
        """Bits of a chunk number within an expert."""
        return clog2(self.chunks_max)

    @property
    def frame_bits(self) -> int:
        """Bits of a frame number."""
        return clog2(self.frames)

    @property
    def bank_bits(self) -> int:
        """Bits of a bank number (0 when there is one bank)."""
        return (self.banks - 1).bit_length()

    @property
    def frame_addr_bits(self) -> int:
        """Bits of a word address within one bank."""
        return clog2(self.frames_per_bank * self.frame_words)

    # Sizes for a model that runs on this build.
    def chunk_bytes(self, d_model: int) -> int:
        """Bytes of one chunk, head and scales included, at activation width ``d_model``."""
        return self.meta_bytes + 3 * self.chunk_units * d_model

    def chunks(self, shape: ModelShape) -> int:
        """Chunks of one expert of ``shape``."""
        return shape.d_ff // self.chunk_units

    def expert_bytes(self, shape: ModelShape) -> int:
        """Bytes of one expert image of ``shape``."""
        return self.chunks(shape) * self.chunk_bytes(shape.d_model)

    def router_bytes(self, shape: ModelShape) -> int:
        """Bytes of one layer's router image: head and int16 weights."""
        return self.router_head_bytes + 2 * shape.experts * shape.d_model

    def check_model(self, shape: ModelShape) -> None:
        """Raise ``ValueError`` naming the first dimension of ``shape`` this build cannot run."""
        for ours, theirs in (
            ("experts_max", "experts"),
            ("top_k_max", "top_k"),
            ("layers_max", "layers"),
            ("d_max", "d_model"),
            ("d_ff_max", "d_ff"),
            ("shared_max", "shared_experts"),
        ):
            limit, value = getattr(self, ours), getattr(shape, theirs)
            require(value <= limit, f"{theirs} = {value} exceeds {ours} = {limit} of the build {self.name!r}")
        require(shape.d_model % self.lanes == 0, f"d_model = {shape.d_model}: must be a multiple of {self.lanes} lanes")
        require(shape.d_model // self.segments >= 4, f"d_model = {shape.d_model}: must be at least {4 * self.segments}")
        require(
            shape.d_ff % self.chunk_units == 0, f"d_ff = {shape.d_ff}: must be a multiple of {self.chunk_units} units"
        )

    def to_json(self) -> str:
        """The fields as JSON, in declaration order."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "EngineConfig":
        """What ``to_json`` wrote."""
        fields = json.loads(text)
        rows = fields.pop("stp")
        steps = tuple((first, last) for first, last in rows.pop("steps"))
        home = RowsHome(fields.pop("stp_rows", RowsHome.CHIP))
        return cls(stp=StpConfig(steps=steps, **rows), stp_rows=home, **fields)
