"""The register map, once. RTL, C header, Python constants and docs/registers.md are all made from it.

Registers are words of 32 bits on a 12-bit address. Offsets and fields are the same in every build; only the reset values of the
read-only capabilities follow the ``EngineConfig``.
"""

from stmoe.model.config import EngineConfig
from stmoe.model.counters import COUNTERS
from stmoe.model.numerics import ROUTED_SCALE_FRAC
from stmoe.model.policy import Policy
from stmoe.model.register_types import Access, Field, Register, RegisterMap
from stmoe.model.shape import ModelShape

#: "STMO", readable in a memory dump.
ID_VALUE = int.from_bytes(b"STMO", "little")
#: Major and minor version of the register map, 16 bits each.
VERSION_VALUE = 0x0001_0000
#: Where the registers lie that a start copies, and the counters.
SETTINGS_BASE = 0x100
COUNTER_BASE = 0x800


def _value(name: str, offset: int, access: Access, width: int, doc: str, reset: int = 0) -> Register:
    fields = (Field(name="value", lsb=0, width=width, doc=doc),)
    return Register(name=name, offset=offset, access=access, doc=doc, fields=fields, reset=reset)


def _address(name: str, offset: int, doc: str) -> tuple[Register, Register]:
    return (
        _value(f"{name}_LO", offset, Access.RW, 32, f"{doc}, bits 31:0"),
        _value(f"{name}_HI", offset + 4, Access.RW, 32, f"{doc}, bits 63:32"),
    )


_CAPABILITIES = {
    "experts_max": "most routed experts of a layer",
    "top_k_max": "most experts chosen for a token",
    "layers_max": "most MoE layers",
    "shared_max": "most shared experts",
    "d_max": "widest activations",
    "d_ff_max": "most hidden units of an expert",
    "lanes": "int8 multipliers of one tile",
    "tiles": "compute tiles",
    "frames": "chunks the expert buffer has room for",
    "bus_bytes": "bytes of the AXI data bus and of the activation streams",
    "chunk_units": "hidden units in one chunk",
    "group_units": "hidden units reduced together in the down projection",
    "cct_ways": "successors in a row of the cross-layer correlation table",
    "cct_counter_bits": "bits of their confidence",
    "router_slots": "layers whose router weights fit on chip",
    "addr_bits": "bits of an AXI address",
    "hidden_units": "most units of a ranker on hidden states; 0 if the build has no hidden-state predictor",
    "hidden_lanes": "its multipliers",
    "hidden_slots": "layers whose sections of the hidden image fit on chip",
}


def _identity(config: EngineConfig) -> tuple[Register, ...]:
    def pair(name: str, offset: int, doc: str, low: tuple[str, int], high: tuple[str, int]) -> Register:
        fields = (
            Field(name=low[0], lsb=0, width=16, doc=_CAPABILITIES[low[0]]),
            Field(name=high[0], lsb=16, width=16, doc=_CAPABILITIES[high[0]]),
        )
        reset = low[1] | high[1] << 16
        return Register(name=name, offset=offset, access=Access.RO, doc=doc, fields=fields, reset=reset)

    def entry(name: str) -> tuple[str, int]:
        return name, getattr(config, name)

    def hidden(name: str) -> tuple[str, int]:
        return name, getattr(config, name) if config.hidden_units else 0

    return (
        _value("ID", 0x000, Access.RO, 32, 'ASCII "STMO", first letter in the lowest byte', ID_VALUE),
        _value("VERSION", 0x004, Access.RO, 32, "version of this map: major 31:16, minor 15:0", VERSION_VALUE),
        pair("CAPS0", 0x008, "largest model", entry("experts_max"), entry("top_k_max")),
        pair("CAPS1", 0x00C, "largest model", entry("layers_max"), entry("shared_max")),
        pair("CAPS2", 0x010, "largest model", entry("d_max"), entry("d_ff_max")),
        pair("CAPS3", 0x014, "compute", entry("lanes"), entry("tiles")),
        pair("CAPS4", 0x018, "expert buffer and bus", entry("frames"), entry("bus_bytes")),
        pair("CAPS5", 0x01C, "image layout", entry("chunk_units"), entry("group_units")),
        pair("CAPS6", 0x020, "predictor", entry("cct_ways"), entry("cct_counter_bits")),
        pair("CAPS7", 0x024, "router memory and addresses", entry("router_slots"), entry("addr_bits")),
        pair("CAPS8", 0x028, "hidden-state predictor", hidden("hidden_units"), hidden("hidden_lanes")),
        Register(
            name="CAPS9",
            offset=0x02C,
            access=Access.RO,
            doc="hidden-state predictor",
            fields=(Field(name="hidden_slots", lsb=0, width=16, doc=_CAPABILITIES["hidden_slots"]),),
            reset=hidden("hidden_slots")[1],
        ),
    )


_INTERRUPTS = (
    ("done", "a result has been sent"),
    ("error", "STATUS.error was set"),
    ("tables", "the learned tables have been saved or loaded"),
)


def _control() -> tuple[Register, ...]:
    def bits(*names: tuple[str, str]) -> tuple[Field, ...]:
        return tuple(Field(name=name, lsb=i, width=1, doc=doc) for i, (name, doc) in enumerate(names))

    return (
        Register(
            name="CONTROL",
            offset=0x080,
            access=Access.WO,
            doc="commands: writing a one triggers",
            fields=bits(
                ("start", "latch every register below and run; refused with STATUS.error if they break a rule"),
                ("stop", "stop, wait for outstanding transfers, reset the engine; clears halted and error"),
                ("clear_tables", "forget what all predictors have learned; a stop forgets it too"),
                ("snapshot", "copy all counters to the counter registers in one cycle"),
                (
                    "clear_counters",
                    "zero the running counters; in one write with snapshot nothing is lost or counted twice",
                ),
                ("save_tables", "write what the predictor of POLICY has learned to TABLE_BASE; while running"),
                (
                    "load_tables",
                    "replace what the predictor of POLICY has learned by what lies at TABLE_BASE; while running",
                ),
            ),
        ),
        Register(
            name="STATUS",
            offset=0x084,
            access=Access.RO,
            doc="state",
            fields=(
                *bits(
                    ("running", "started, and neither stopped nor halted"),
                    ("quiescent", "not stopping, and no transfer is outstanding"),
                    ("halted", "an error stopped the engine; CONTROL.stop is the way out"),
                    ("window_lock", "the windows can no longer be changed"),
                ),
                Field(
                    name="error",
                    lsb=4,
                    width=4,
                    doc="error code, below; the first since the last stop or accepted start",
                ),
                Field(name="tables", lsb=8, width=1, doc="save_tables or load_tables is under way"),
            ),
            reset=0x2,
        ),
        Register(
            name="ERROR_INFO",
            offset=0x088,
            access=Access.RO,
            doc="where the error was",
            fields=(
                Field(name="layer", lsb=0, width=8, doc="layer"),
                Field(name="expert", lsb=8, width=12, doc="expert"),
            ),
        ),
        _value("ERROR_DETAIL", 0x08C, Access.RO, 16, "by error code: the broken rule, the frame, or the message fault"),
        Register(
            name="IRQ_ENABLE",
            offset=0x090,
            access=Access.RW,
            doc="which bits of IRQ_STATUS raise irq",
            fields=bits(*_INTERRUPTS),
        ),
        Register(
            name="IRQ_STATUS",
            offset=0x094,
            access=Access.W1C,
            doc="pending interrupts; write ones to clear",
            fields=bits(*_INTERRUPTS),
        ),
    )


def _model() -> tuple[Register, ...]:
    return (
        _value("MODEL_EXPERTS", 0x100, Access.RW, 16, "routed experts of a layer (E)"),
        _value("MODEL_TOP_K", 0x104, Access.RW, 16, "experts chosen for a token (k)"),
        _value("MODEL_LAYERS", 0x108, Access.RW, 16, "MoE layers (L)"),
        _value("MODEL_D", 0x10C, Access.RW, 16, "width of the activations (d)"),
        _value("MODEL_D_FF", 0x110, Access.RW, 16, "hidden units of one expert"),
        _value("MODEL_SHARED", 0x114, Access.RW, 16, "shared experts, numbered from E"),
        Register(
            name="MODEL_FLAGS",
            offset=0x118,
            access=Access.RW,
            doc="variants",
            fields=(
                Field(name="renormalise", lsb=0, width=1, doc="softmax over the top-k (1) or over all experts (0)"),
            ),
            reset=1,
        ),
        _value(
            "ROUTED_SCALE",
            0x11C,
            Access.RW,
            16,
            "factor on the router's weights, Q4.12",
            1 << ROUTED_SCALE_FRAC,
        ),
        _value("IMAGE_ID", 0x120, Access.RW, 32, "image id, from the header of the expert image"),
    )


def _memory() -> tuple[Register, ...]:
    return (
        *_address("ROUTER_BASE", 0x140, "address of layer 0's router image"),
        _value("ROUTER_BYTES", 0x148, Access.RW, 32, "bytes from one layer's router image to the next"),
        *_address("EXPERT_BASE", 0x150, "address of expert 0 of layer 0"),
        *_address("READ_WINDOW_BASE", 0x160, "first address that may be read"),
        *_address("READ_WINDOW_LIMIT", 0x168, "last address that may be read"),
        *_address("WRITE_WINDOW_BASE", 0x170, "first address that may be written"),
        *_address(
            "WRITE_WINDOW_LIMIT", 0x178, "last address that may be written; a window smaller than a bus word is closed"
        ),
        Register(
            name="WINDOW_LOCK",
            offset=0x180,
            access=Access.RW,
            doc="once one, the window registers and this one refuse writes with SLVERR until aresetn",
            fields=(Field(name="lock", lsb=0, width=1, doc="lock"),),
        ),
        *_address("TABLE_BASE", 0x188, "address of the learned tables"),
        *_address("HIDDEN_BASE", 0x190, "address of layer 0's section of the hidden image"),
        _value("HIDDEN_BYTES", 0x198, Access.RW, 32, "bytes from one layer's section of the hidden image to the next"),
    )


def _policy() -> tuple[Register, ...]:
    return (
        _value(
            "POLICY",
            0x1C0,
            Access.RW,
            8,
            "what stays resident and what is prefetched: " + ", ".join(f"{p.value} {p.label}" for p in Policy),
            Policy.ST_MOE.value,
        ),
        Register(
            name="SCHEDULE",
            offset=0x1C4,
            access=Access.RW,
            doc="order of work",
            fields=(
                Field(name="split", lsb=0, width=1, doc="one expert a tile (1), or all tiles ganged on its chunks (0)"),
                Field(name="serial", lsb=1, width=1, doc="load all of a layer's experts, then compute: for comparison"),
                Field(name="demote", lsb=2, width=1, doc="give up first what was prefetched and then not chosen"),
            ),
        ),
        Register(
            name="PREDICTOR_SCORE",
            offset=0x1C8,
            access=Access.RW,
            doc="which experts are predicted",
            fields=(
                Field(name="threshold", lsb=0, width=8, doc="least score that is prefetched"),
                Field(name="history_weight", lsb=8, width=8, doc="score of having been used for the previous token"),
                Field(name="vote_confidence", lsb=16, width=1, doc="a CCT entry votes its confidence (1) or one (0)"),
            ),
            reset=2 | 2 << 8,
        ),
        Register(
            name="PREDICTOR_LEARN",
            offset=0x1CC,
            access=Access.RW,
            doc="how CCT entries learn",
            fields=(
                Field(name="step_up", lsb=0, width=6, doc="added to an entry that came true"),
                Field(name="step_down", lsb=8, width=6, doc="taken from an entry that did not"),
                Field(name="initial", lsb=16, width=6, doc="confidence of a new entry"),
                Field(name="counter_max", lsb=24, width=6, doc="where confidence saturates"),
            ),
            reset=1 | 1 << 8 | 1 << 16 | 3 << 24,
        ),
        _value("PREFETCH_BUDGET", 0x1D0, Access.RW, 16, "chunks that may be prefetched for one layer", 0xFFFF),
        _value("DEBUG", 0x1D4, Access.RW, 32, "reserved, no effect"),
        _value("PREFETCH_WORTH", 0x1D8, Access.RW, 8, "least probability of a prefetched expert, in 256ths; 0: any"),
        _value(
            "PREFETCH_WINDOW",
            0x1DC,
            Access.RW,
            32,
            "cycles after a result in which prefetches may begin (those that the counter window counts); 0: without end",
        ),
    )


def _counters() -> tuple[Register, ...]:
    registers: list[Register] = []
    for i, counter in enumerate(COUNTERS):
        offset = COUNTER_BASE + 8 * i
        registers.append(_value(f"{counter.name.upper()}_LO", offset, Access.RO, 32, f"{counter.doc}, bits 31:0"))
        registers.append(_value(f"{counter.name.upper()}_HI", offset + 4, Access.RO, 32, f"{counter.doc}, bits 63:32"))
    return tuple(registers)


def register_map(config: EngineConfig) -> RegisterMap:
    """The registers of the build ``config``."""
    return RegisterMap(
        (*_identity(config), *_control(), *_model(), *_memory(), *_policy(), *_counters()),
    )


#: Registers that WINDOW_LOCK locks.
LOCKED_REGISTERS = (
    *(
        f"{kind}_WINDOW_{end}_{half}"
        for kind in ("READ", "WRITE")
        for end in ("BASE", "LIMIT")
        for half in ("LO", "HI")
    ),
    "WINDOW_LOCK",
)


def shape_values(shape: ModelShape) -> dict[str, int]:
    """What to write to the MODEL registers for ``shape``."""
    return {
        "MODEL_EXPERTS": shape.experts,
        "MODEL_TOP_K": shape.top_k,
        "MODEL_LAYERS": shape.layers,
        "MODEL_D": shape.d_model,
        "MODEL_D_FF": shape.d_ff,
        "MODEL_SHARED": shape.shared_experts,
        "MODEL_FLAGS": int(shape.renormalise),
        "ROUTED_SCALE": round(shape.routed_scale * (1 << ROUTED_SCALE_FRAC)),
    }


def address_values(name: str, address: int) -> dict[str, int]:
    """What to write to the register pair ``name`` for ``address``."""
    return {f"{name}_LO": address & 0xFFFF_FFFF, f"{name}_HI": address >> 32}
