"""A predictor and nothing else, behind a stream of bytes: what is left of the engine on a small FPGA.

A request is 0xA5, then layer, sequence, token (2 bytes, the low one first), count, the ids in rank order, and the XOR of these bytes.
The answer is the prediction, two bytes an expert, id and score, then 0xFF. What is not a request is answered by 0xFE.
"""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.predictor.st_moe import StMoePredictor
from stmoe.model.config import EngineConfig
from stmoe.model.predictor.st_moe import Params
from stmoe.model.shape import ModelShape

SYNC, END, REFUSED = 0xA5, 0xFF, 0xFE
#: Bytes of a request between the sync byte and the ids.
FIELDS = ("layer", "sequence", "token_low", "token_high", "count")


class PredictorShell(wiring.Component):
    """``StMoePredictor`` for one model, fed by bytes.

    A request whose XOR, layer, count or ids are wrong teaches nothing and is answered by ``REFUSED`` as soon as its last byte is in.
    A request that stops half-way is dropped after ``timeout_cycles`` without a byte. Throughput: a request is taken when the
    answer to the last one has gone and the predictor has learned; until then ``i_byte`` is not ready. Reset: nothing learned.

    Parameters
    ----------
    config : the build; at most 254 experts.
    shape : the model.
    params : the predictor's, fixed.
    timeout_cycles : see above.

    Members
    -------
    i_byte, o_byte : from and to the host.
    busy : Out, the predictor is at work.
    """

    def __init__(self, config: EngineConfig, shape: ModelShape, params: Params, timeout_cycles: int):
        config.check_model(shape)
        if shape.experts >= REFUSED:
            raise ValueError(f"experts = {shape.experts}: at most {REFUSED - 1}")
        self.config, self.shape, self.params = config, shape, params
        self.timeout_cycles = timeout_cycles
        byte = stream.Signature(8)
        super().__init__({"i_byte": In(byte), "o_byte": Out(byte), "busy": Out(1)})

    def elaborate(self, platform):
        """States: SYNC, FIELDS, IDS, CHECK take a request; TEACH; EXPERT, SCORE, END, REFUSE answer."""
        m = Module()
        shape, params = self.shape, self.params
        m.submodules.predictor = predictor = StMoePredictor(self.config)
        m.d.comb += [
            predictor.shape.experts.eq(shape.experts),
            predictor.shape.layers.eq(shape.layers),
            self.busy.eq(predictor.busy),
        ]
        for name in predictor.params.shape().members:
            m.d.comb += predictor.params[name].eq(int(getattr(params, name)))

        fields = {name: Signal(8, name=name, reset_less=True) for name in FIELDS}
        field = Signal(range(len(FIELDS)), reset_less=True)
        place = Signal(range(self.config.top_k_max + 1), reset_less=True)
        check = Signal(8, reset_less=True)
        legal = Signal(reset_less=True)
        silent = Signal(range(self.timeout_cycles + 1), reset_less=True)
        byte, taken = self.i_byte.payload, Signal()
        routed, item = predictor.i_routed.payload, predictor.o_prediction
        ids = Signal.like(routed.ids, reset_less=True)
        m.d.comb += [
            taken.eq(self.i_byte.valid & self.i_byte.ready),
            routed.layer.eq(fields["layer"]),
            routed.sequence.eq(fields["sequence"]),
            routed.token.eq(fields["token_low"] | (fields["token_high"] << 8)),
            routed.count.eq(fields["count"]),
            routed.ids.eq(ids),
        ]
        m.d.sync += silent.eq(silent + 1)
        with m.If(taken):
            m.d.sync += [silent.eq(0), check.eq(check ^ byte)]

        def drop_when_silent():
            with m.If(silent == self.timeout_cycles):
                m.next = "SYNC"

        def send(value, then: str):
            m.d.comb += [self.o_byte.valid.eq(1), self.o_byte.payload.eq(value)]
            with m.If(self.o_byte.ready):
                m.next = then

        with m.FSM():
            with m.State("SYNC"):
                m.d.comb += self.i_byte.ready.eq(~predictor.busy)
                m.d.sync += [field.eq(0), place.eq(0), check.eq(0), legal.eq(1)]
                with m.If(taken):
                    m.next = "REFUSE"
                    with m.If(byte == SYNC):
                        m.next = "FIELDS"
            with m.State("FIELDS"):
                drop_when_silent()
                m.d.comb += self.i_byte.ready.eq(1)
                with m.If(taken):
                    m.d.sync += field.eq(field + 1)
                    with m.Switch(field):
                        for number, signal in enumerate(fields.values()):
                            with m.Case(number):
                                m.d.sync += signal.eq(byte)
                    with m.If((field == FIELDS.index("layer")) & (byte >= shape.layers)):
                        m.d.sync += legal.eq(0)
                    with m.If(field == FIELDS.index("count")):
                        m.next = "IDS"
                        with m.If(byte == 0):
                            m.next = "CHECK"
                        with m.Elif(byte > shape.top_k):
                            # How long it is meant to be is not to be believed.
                            m.next = "REFUSE"
            with m.State("IDS"):
                drop_when_silent()
                m.d.comb += self.i_byte.ready.eq(1)
                with m.If(taken):
                    m.d.sync += [ids[place].eq(byte), place.eq(place + 1)]
                    with m.If(byte >= shape.experts):
                        m.d.sync += legal.eq(0)
                    with m.If(place + 1 == fields["count"]):
                        m.next = "CHECK"
            with m.State("CHECK"):
                drop_when_silent()
                m.d.comb += self.i_byte.ready.eq(1)
                with m.If(taken):
                    m.next = "REFUSE"
                    with m.If(legal & (byte == check)):
                        m.next = "TEACH"
            with m.State("TEACH"):
                m.d.comb += predictor.i_routed.valid.eq(1)
                with m.If(predictor.i_routed.ready):
                    m.next = "EXPERT"
            with m.State("EXPERT"):
                with m.If(item.valid & item.payload.none):
                    m.d.comb += item.ready.eq(1)
                    m.next = "END"
                with m.Elif(item.valid):
                    send(item.payload.ref.expert, then="SCORE")
            with m.State("SCORE"):
                m.d.comb += item.ready.eq(self.o_byte.ready)
                send(item.payload.score, then="EXPERT")
                with m.If(self.o_byte.ready & item.payload.last):
                    m.next = "END"
            with m.State("END"):
                send(END, then="SYNC")
            with m.State("REFUSE"):
                send(REFUSED, then="SYNC")
        return m
