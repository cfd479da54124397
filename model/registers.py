"""The register map, once. RTL, C header, Python constants and docs/registers.md are all made from it.

Registers are words of 32 bits on a 12-bit address. Offsets and fields are the same in every build; only the reset values of the
read-only capabilities follow the ``EngineConfig``. ``broken_rule`` is the golden twin of what the hardware checks at start.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from stmoe.model.config import EngineConfig, ModelShape, Policy
from stmoe.model.counters import COUNTERS
from stmoe.model.numerics import ROUTED_SCALE_FRAC

REGISTER_BITS = 32
ADDRESS_BITS = 12
#: "STMO", readable in a memory dump.
ID_VALUE = int.from_bytes(b"STMO", "little")
#: Major and minor version of the register map, 16 bits each.
VERSION_VALUE = 0x0001_0000
COUNTER_BASE = 0x800


class Access(enum.Enum):
    """What a write does."""

    RO = "ro"  #: refused with SLVERR
    RW = "rw"  #: stored
    W1C = "w1c"  #: ones clear
    WO = "wo"  #: ones trigger; reads zero


class _Code(enum.IntEnum):
    """A number with a sentence."""

    doc: str

    def __new__(cls, value: int, doc: str):
        """The number is the value; the sentence is kept beside it."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


class ErrorCode(_Code):
    """``STATUS.error``. From CRC to MESSAGE the engine halts; the others refuse a command."""

    NONE = 0, "no error"
    CONFIG = 1, "start refused: illegal combination of registers; ERROR_DETAIL is the broken rule"
    CRC = (
        2,
        "a chunk, router image or learned tables failed their CRC-32C; ERROR_DETAIL is the frame, 0xFFFF for tables",
    )
    AXI = 3, "an AXI error response, or an address outside its window; ERROR_DETAIL is the frame, 0xFFFF for tables"
    MESSAGE = 4, "a bad message on s_axis; ERROR_DETAIL is the message fault"
    UNCONFIGURED = 5, "start refused: no model has been written since reset"
    BUSY = 6, "start refused: running, halted, or not quiescent yet"
    TABLES = 7, "save_tables or load_tables refused: not running, one is under way, or both at once"


class MessageFault(_Code):
    """``ERROR_DETAIL`` of a MESSAGE error."""

    KIND = 1, "unknown kind"
    LAYER = 2, "layer is not below MODEL_LAYERS"
    COUNT = 3, "a count that is not top_k, or over the maximum"
    LENGTH = 4, "TLAST came early or late"
    EXPERT = 5, "an expert number that is not below MODEL_EXPERTS, or twice in a routing"


class ConfigRule(_Code):
    """``ERROR_DETAIL`` of a CONFIG error: the first rule, in this order, that the registers break at start."""

    EXPERTS = 1, "MODEL_EXPERTS from 1 to the build's maximum"
    TOP_K = 2, "MODEL_TOP_K from 1 to the build's maximum, and not over MODEL_EXPERTS"
    LAYERS = 3, "MODEL_LAYERS from 1 to the build's maximum"
    D_MODEL = 4, "MODEL_D a multiple of the lanes, at least 4 words of the down projection, up to the build's maximum"
    D_FF = 5, "MODEL_D_FF a multiple of the chunk's units, from 1 chunk to the build's maximum"
    SHARED = 6, "MODEL_SHARED up to the build's maximum"
    ROUTED_SCALE = 7, "ROUTED_SCALE not zero"
    IMAGE_ID = 8, "IMAGE_ID not zero"
    ROUTER_BASE = 9, "ROUTER_BASE a multiple of the bus width in bytes, within the address width"
    ROUTER_BYTES = 10, "ROUTER_BYTES a multiple of the bus width in bytes, at least one router image"
    EXPERT_BASE = 11, "EXPERT_BASE a multiple of the bus width in bytes, within the address width"
    READ_WINDOW = 12, "READ_WINDOW base not over limit, limit within the address width"
    WRITE_WINDOW = 13, "WRITE_WINDOW base not over limit, limit within the address width"
    POLICY = 14, "POLICY one of the known numbers"
    PREDICTOR = 16, "initial, step_up and step_down not over counter_max, and counter_max within the build's counters"
    TABLE_BASE = 17, "TABLE_BASE a multiple of the bus width in bytes, within the address width"


@dataclass(frozen=True, kw_only=True)
class Field:
    """Bits ``lsb`` to ``lsb + width - 1`` of a register."""

    name: str
    lsb: int
    width: int
    doc: str

    def __post_init__(self):
        if self.lsb < 0 or self.width < 1 or self.lsb + self.width > REGISTER_BITS:
            raise ValueError(f"field {self.name!r}: bits {self.lsb}+{self.width} do not lie in {REGISTER_BITS}")

    @property
    def mask(self) -> int:
        """The field's bits within the register."""
        return ((1 << self.width) - 1) << self.lsb


@dataclass(frozen=True, kw_only=True)
class Register:
    """One register of 32 bits. ``reset`` is the value after reset, and for constants the value for ever."""

    name: str
    offset: int
    access: Access
    doc: str
    fields: tuple[Field, ...]
    reset: int = 0

    def __post_init__(self):
        if self.offset % 4 or not 0 <= self.offset < 1 << ADDRESS_BITS:
            raise ValueError(f"register {self.name!r}: offset {self.offset:#x} is not a word of the map")
        used = 0
        for field in self.fields:
            if used & field.mask:
                raise ValueError(f"register {self.name!r}: field {field.name!r} overlaps another")
            used |= field.mask
        if self.reset & ~used:
            raise ValueError(f"register {self.name!r}: reset {self.reset:#x} has bits outside its fields")

    @property
    def mask(self) -> int:
        """All bits that belong to fields."""
        return sum(field.mask for field in self.fields)

    def field(self, name: str) -> Field:
        """The field ``name``."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"register {self.name} has no field {name!r}")

    def encode(self, **values: int) -> int:
        """The register's value with ``values`` in its fields, zero elsewhere."""
        word = 0
        for name, value in values.items():
            field = self.field(name)
            if not 0 <= value < 1 << field.width:
                raise ValueError(f"{self.name}.{name} = {value}: does not fit {field.width} bits")
            word |= value << field.lsb
        return word

    def decode(self, word: int) -> dict[str, int]:
        """The fields of ``word``."""
        return {field.name: (word & field.mask) >> field.lsb for field in self.fields}


@dataclass(frozen=True)
class RegisterMap:
    """All registers of a build, by offset."""

    registers: tuple[Register, ...]

    def __post_init__(self):
        offsets = [register.offset for register in self.registers]
        if offsets != sorted(set(offsets)):
            raise ValueError("register offsets are not rising")
        if len({register.name for register in self.registers}) != len(self.registers):
            raise ValueError("two registers share a name")

    def __getitem__(self, name: str) -> Register:
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(f"no register {name!r}")

    def __iter__(self):
        return iter(self.registers)


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
                ("clear_tables", "forget what the predictor has learned; a stop forgets it too"),
                ("snapshot", "copy all counters to the counter registers in one cycle"),
                (
                    "clear_counters",
                    "zero the running counters; in one write with snapshot nothing is lost or counted twice",
                ),
                ("save_tables", "write what the predictor has learned to TABLE_BASE; while running"),
                ("load_tables", "replace what the predictor has learned by what lies at TABLE_BASE; while running"),
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
#: All zero after reset: a start with these untouched is refused as UNCONFIGURED.
MODEL_DIMENSIONS = ("MODEL_EXPERTS", "MODEL_TOP_K", "MODEL_LAYERS", "MODEL_D", "MODEL_D_FF")


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


def broken_rule(config: EngineConfig, values: Mapping[str, int]) -> ConfigRule | None:
    """The rule a start with the register ``values`` breaks first, or None. Registers left out have their reset values."""
    registers = register_map(config)

    def get(name: str) -> int:
        return values.get(name, registers[name].reset)

    def address(name: str) -> int:
        return get(f"{name}_LO") | get(f"{name}_HI") << 32

    def base_fits(name: str) -> bool:
        return address(name) % config.bus_bytes == 0 and address(name) < 1 << config.addr_bits

    def window_fits(name: str) -> bool:
        return address(f"{name}_BASE") <= address(f"{name}_LIMIT") < 1 << config.addr_bits

    experts, d, d_ff = get("MODEL_EXPERTS"), get("MODEL_D"), get("MODEL_D_FF")
    router_bytes = get("ROUTER_BYTES")
    learn = registers["PREDICTOR_LEARN"].decode(get("PREDICTOR_LEARN"))
    steps = max(learn["step_up"], learn["step_down"], learn["initial"])
    kept = {
        ConfigRule.EXPERTS: 1 <= experts <= config.experts_max,
        ConfigRule.TOP_K: 1 <= get("MODEL_TOP_K") <= min(experts, config.top_k_max),
        ConfigRule.LAYERS: 1 <= get("MODEL_LAYERS") <= config.layers_max,
        ConfigRule.D_MODEL: d % config.lanes == 0 and 4 * config.segments <= d <= config.d_max,
        ConfigRule.D_FF: d_ff % config.chunk_units == 0 and 1 <= d_ff <= config.d_ff_max,
        ConfigRule.SHARED: get("MODEL_SHARED") <= config.shared_max,
        ConfigRule.ROUTED_SCALE: get("ROUTED_SCALE") != 0,
        ConfigRule.IMAGE_ID: get("IMAGE_ID") != 0,
        ConfigRule.ROUTER_BASE: base_fits("ROUTER_BASE"),
        ConfigRule.ROUTER_BYTES: router_bytes % config.bus_bytes == 0
        and router_bytes >= config.router_head_bytes + 2 * experts * d,
        ConfigRule.EXPERT_BASE: base_fits("EXPERT_BASE"),
        ConfigRule.READ_WINDOW: window_fits("READ_WINDOW"),
        ConfigRule.WRITE_WINDOW: window_fits("WRITE_WINDOW"),
        ConfigRule.POLICY: get("POLICY") < len(Policy),
        ConfigRule.PREDICTOR: steps <= learn["counter_max"] < 1 << config.cct_counter_bits,
        ConfigRule.TABLE_BASE: base_fits("TABLE_BASE"),
    }
    return next((rule for rule, holds in kept.items() if not holds), None)
