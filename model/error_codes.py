"""What ``STATUS.error`` and ``ERROR_DETAIL`` say: numbers, each with the sentence that documents it."""

import enum


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
    POLICY = 14, "POLICY one of the known numbers; hidden and fusion in builds with a hidden-state predictor only"
    PREDICTOR = 16, "initial, step_up and step_down not over counter_max, and counter_max within the build's counters"
    TABLE_BASE = 17, "TABLE_BASE a multiple of the bus width in bytes, within the address width"
    HIDDEN_BASE = 18, "HIDDEN_BASE a multiple of the bus width in bytes, within the address width"
    HIDDEN_BYTES = (
        19,
        "HIDDEN_BYTES a multiple of the bus width in bytes, up to a slot of the build; at least a section's head under the "
        "policies hidden and fusion",
    )
