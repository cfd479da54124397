"""What STP asks of the place where its rows live, whichever it is."""

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from stmoe.hw.layouts import TableCommand
from stmoe.hw.predictor.stp_learning import slice_errors, stp_row, stp_slice
from stmoe.hw.predictor.stp_sources import row_entry
from stmoe.model.config import EngineConfig, clog2


def addend(config: EngineConfig) -> data.StructLayout:
    """Event: a slice of a row that was listed. All weights are 0 when it is not ``valid``."""
    return data.StructLayout({"valid": 1, "weights": stp_slice(config)})


def slice_request(config: EngineConfig) -> data.StructLayout:
    """Event: the errors of a slice are wanted."""
    return data.StructLayout({"valid": 1, "slice": clog2(config.stp_slices)})


class RowStore(Signature):
    """Rows are listed, added up, and learn when the truth is known.

    There are two lists: of the prediction that is being made, and of the one that was made before and is to be verified. Both
    are empty at first. Directions are the store's.

    Members
    -------
    ready : Out, level: rows may be listed.
    i_entry : event, a row that the prediction reads; while ``ready``.
    complete : In, level, after the last entry: addends are wanted.
    o_addend : event, a slice of a row, its slices in order; each row once for every entry, a row listed twice comes twice.
    adding : Out, level: addends are still to come; it may be low until the cycle after the first entry.
    swap : In, pulse: the prediction has been made. Its list is the one to be verified, the next one is empty.
    learn : In, pulse: let the rows of the list to be verified learn, in the order in which they were listed; it is then empty.
    o_want : event, from ``learn`` until ``learned``: whose ``errors`` count (In) two cycles later.
    learned : Out, pulse, with the end of learning.
    owing : Out, level: the list to be verified is not empty.
    drop : In, pulse: both lists are empty.
    wanted : In, level: a routing or a word waits. ``free``: Out, level: it may be taken.
    allowed : In, level: neither listing nor learning, a command may begin.
    i_command, o_row, i_row : as for ``TableWalk``.
    forgets : Out, level: rows are no longer what they were.
    busy : Out, level: at work, for whatever reason.
    """

    def __init__(self, config: EngineConfig):
        row = stream.Signature(stp_row(config))
        super().__init__(
            {
                "ready": Out(1),
                "i_entry": In(row_entry(config)),
                "complete": In(1),
                "o_addend": Out(addend(config)),
                "adding": Out(1),
                "swap": In(1),
                "learn": In(1),
                "o_want": Out(slice_request(config)),
                "errors": In(slice_errors(config)),
                "learned": Out(1),
                "owing": Out(1),
                "drop": In(1),
                "wanted": In(1),
                "free": Out(1),
                "allowed": In(1),
                "i_command": In(stream.Signature(TableCommand)),
                "o_row": Out(row),
                "i_row": In(row),
                "forgets": Out(1),
                "busy": Out(1),
            }
        )
