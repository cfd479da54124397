"""What the head of a request says of the rest (docs/link.md, "Operations")."""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from stmoe.fpga.link.frame_receiver import length_bits
from stmoe.fpga.link.mover import Move
from stmoe.fpga.link.protocol import ADDRESS_BYTES, REQUEST_HEAD, Operation

#: Arguments of fixed length.
ARGUMENT_BYTES = {
    Operation.IDENTIFY: 4,
    Operation.REGISTER_READ: 6,
    Operation.MEMORY_READ: ADDRESS_BYTES + 2,
    Operation.MEMORY_CRC: ADDRESS_BYTES + 4,
    Operation.STREAM_RECEIVE: 2,
    Operation.STATUS: 0,
    Operation.RESET: 0,
}
MOVES = {
    Operation.MEMORY_WRITE: Move.WRITE,
    Operation.MEMORY_READ: Move.READ,
    Operation.MEMORY_CRC: Move.READ,
    Operation.STREAM_SEND: Move.SEND,
    Operation.STREAM_RECEIVE: Move.RECEIVE,
}


class RequestRules(wiring.Component):
    """Tells an operation by its number, and whether the request has as many bytes as it wants. Without state: outputs follow inputs.

    Parameters
    ----------
    frame_bytes : most bytes of a request.

    Members
    -------
    operation : second byte of the request.
    length : bytes of the request, without checksum.
    known : there is such an operation.
    fits : ``length`` is right for it.
    move : what is moved, if anything is.
    """

    def __init__(self, frame_bytes: int):
        self.frame_bytes = frame_bytes
        super().__init__(
            {
                "operation": In(8),
                "length": In(length_bits(frame_bytes)),
                "known": Out(1),
                "fits": Out(1),
                "move": Out(Move),
            }
        )

    def elaborate(self, platform):
        m = Module()
        length = self.length
        m.d.comb += self.known.eq((self.operation != 0) & (self.operation <= max(Operation)))
        with m.Switch(self.operation):
            for operation, size in ARGUMENT_BYTES.items():
                with m.Case(operation):
                    m.d.comb += self.fits.eq(length == REQUEST_HEAD + size)
            with m.Case(Operation.REGISTER_WRITE):
                m.d.comb += self.fits.eq((length[:3] == REQUEST_HEAD) & (length[3:] != 0))
            with m.Case(Operation.MEMORY_WRITE):
                m.d.comb += self.fits.eq(length >= REQUEST_HEAD + ADDRESS_BYTES)
            with m.Case(Operation.STREAM_SEND):
                m.d.comb += self.fits.eq(length > REQUEST_HEAD)
        with m.Switch(self.operation):
            for operation, move in MOVES.items():
                with m.Case(operation):
                    m.d.comb += self.move.eq(move)
        return m
