"""The hardware counters: one table. The RTL, the register map, the C header and the documentation are made from it.

A counter adds what its increment says in every cycle; ``unit`` says how large one increment can be. New counters go at the end,
so that the offsets of the others stay. A build may leave counters out (``hw/control/counters.py``); they then read zero.
"""

import enum
from dataclasses import dataclass

from stmoe.model.config import EngineConfig

COUNTER_BITS = 64


class Unit(enum.Enum):
    """What bounds the increment of one cycle."""

    EVENT = "event"  #: at most one in a cycle: a cycle in a state, a beat, an event
    TILES = "tiles"  #: at most one a tile
    UNITS = "units"  #: at most one a multiplier of the down projection's reduction: ``group_units`` a tile
    EXPERT = "expert"  #: as many as an expert has chunks
    CHUNK = "chunk"  #: as many as a chunk has bus beats


@dataclass(frozen=True, kw_only=True)
class Counter:
    """One 64-bit counter. ``name`` is also the name of its registers (upper case, ``_LO`` and ``_HI``)."""

    name: str
    unit: Unit
    doc: str

    def increment_max(self, config: EngineConfig) -> int:
        """The largest increment of one cycle."""
        match self.unit:
            case Unit.EVENT:
                return 1
            case Unit.TILES:
                return config.tiles
            case Unit.UNITS:
                return config.tiles * config.group_units
            case Unit.EXPERT:
                return config.chunks_max
            case Unit.CHUNK:
                return config.frame_words * config.beats_per_word

    def increment_bits(self, config: EngineConfig) -> int:
        """Bits of the increment."""
        return self.increment_max(config).bit_length()


def _event(name: str, doc: str) -> Counter:
    return Counter(name=name, unit=Unit.EVENT, doc=doc)


COUNTERS: tuple[Counter, ...] = (
    # Time and where it goes.
    _event("cycles", "cycles while running"),
    _event("token_layers", "results sent: one for each token and MoE layer"),
    _event(
        "window", "cycles between a result and the next activations, without those in which a hint or state comes in"
    ),
    _event("router_cycles", "cycles in which the router works on a token"),
    _event("stall_demand", "cycles of a token's execution with no tile busy and demand fetches pending"),
    _event("stall_router_weights", "cycles in which the router waits for its weights"),
    # Compute.
    _event("compute_busy", "cycles with at least one tile busy"),
    Counter(name="tile_busy", unit=Unit.TILES, doc="busy tiles, summed over cycles"),
    Counter(
        name="tile_useful",
        unit=Unit.TILES,
        doc="buffer words multiplied, summed over tiles: useful cycles of MAC lanes",
    ),
    Counter(name="h8_saturations", unit=Unit.UNITS, doc="hidden units whose h8 was clamped (docs/numerics.md §3)"),
    # Memory.
    _event("demand_pending", "cycles with a demand fetch pending"),
    _event("read_beats_demand_pending", "read data beats taken in cycles with a demand fetch pending"),
    _event("demand_beats", "read data beats of demand fetches, router images and hidden sections included"),
    _event("prefetch_beats", "read data beats of prefetches"),
    _event("router_beats", "read data beats of router images"),
    # Experts: hits and misses.
    _event("expert_hits", "selected experts whose chunks had all landed when the router spoke"),
    _event("expert_partial", "selected experts with some, but not all chunks allocated when the router spoke"),
    _event("demand_misses", "selected experts with at least one chunk not yet allocated when the router spoke"),
    Counter(name="demand_chunks", unit=Unit.EXPERT, doc="chunks fetched on demand"),
    Counter(name="late_chunks", unit=Unit.EXPERT, doc="chunks of selected experts in flight when the router spoke"),
    # Prediction and prefetch.
    _event(
        "predicted", "experts predicted (after threshold and ranking) for a layer after the first that was then routed"
    ),
    _event("predicted_useful", "of these, the experts that the router then selected"),
    _event("prefetched_experts", "experts of which at least one chunk was prefetched"),
    _event("prefetch_chunks", "chunks whose prefetch was issued"),
    _event("prefetch_useful_chunks", "prefetched chunks whose expert the router then selected"),
    _event("prefetch_wasted_chunks", "prefetched or aborted chunks whose expert the router did not select"),
    _event("prefetch_aborted", "prefetches cancelled before their last beat"),
    _event("evicted_frames", "frames taken from one expert for another"),
    _event("hidden_beats", "read data beats of sections of the hidden image"),
    _event("row_beats", "read data beats of STP's rows in DRAM, which prefetch_beats counts too"),
    _event("row_written_beats", "written data beats of STP's rows in DRAM"),
    _event("void_rows", "rows in DRAM taken for zeros: not written since they were cleared, or damaged"),
)

COUNTER_BY_NAME = {counter.name: counter for counter in COUNTERS}
