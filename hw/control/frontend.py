"""The message parser: takes ``s_axis`` apart (docs/interfaces.md §2).

Activations go to the memories of router and tiles as they arrive, routing entries to a register file, hints to a queue, an
announced word and states to the predictors; a message that does not have the announced form raises ``bad_message`` and stops the
parser, since nothing after it can be trusted.
"""

from amaranth import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from stmoe.hw.layouts import SCORE_BITS, announcement, prediction, shape_layout, state, token_layout, weights, x_write
from stmoe.model.config import EngineConfig
from stmoe.model.error_codes import MessageFault

KIND_ACTIVATIONS = 1
KIND_ROUTED = 2
KIND_HINT = 3
KIND_WORD = 4
KIND_STATE = 5
HEADER_BYTES = 16


def axis_layout(config: EngineConfig) -> data.StructLayout:
    """One beat of an activation stream."""
    return data.StructLayout({"data": 8 * config.bus_bytes, "last": 1})


def header_layout() -> data.StructLayout:
    """The 16 bytes in front of every message."""
    return data.StructLayout(
        {"kind": 8, "layer": 8, "exponent": signed(8), "count": 8, "sequence": 32, "token": 32, "word": 32}
    )


class Frontend(wiring.Component):
    """Parses messages; holds one token and a queue of hints.

    Latency: the token is offered in the cycle after its last beat. Throughput: one beat a cycle, except that routing and hint
    entries (4 bytes) take two cycles each. Backpressure: ``i_axis`` is not ready while a token waits to be taken; a hint with more
    entries than the queue has room for is dropped; a word or state replaces one that was not taken: the beats of a state void the one
    before. Reset: idle, queue empty, no word, no state.

    Members
    -------
    i_axis : stream of ``axis_layout``.
    hints : In, hints are wanted (policy ``oracle``); else they are dropped. ``states``: In, states are; likewise.
    shape : In, run-time shape.
    x_write : event, a beat of x16 with its number.
    o_token : stream of ``token_layout``; taken when the engine has finished with it.
    external_ids, external_weights : of a routed message, stable while its token is offered.
    o_hint : stream of ``prediction``; the run of one hint message ends with ``last``.
    o_word : stream of ``announcement``.
    state_write : event, a beat of a state's x16 with its number. ``o_state``: stream of ``state``, after the last of them.
    bad_message : pulse, with ``fault`` saying what is wrong; the parser then stands still until reset.
    idle : no message is half received (hints in the queue may wait).
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "i_axis": In(stream.Signature(axis_layout(config))),
                "hints": In(1),
                "states": In(1),
                "shape": In(shape_layout(config)),
                "x_write": Out(x_write(config)),
                "o_token": Out(stream.Signature(token_layout(config))),
                "external_ids": Out(data.ArrayLayout(config.expert_bits, config.top_k_max)),
                "external_weights": Out(weights(config)),
                "o_hint": Out(stream.Signature(prediction(config))),
                "o_word": Out(stream.Signature(announcement())),
                "state_write": Out(x_write(config)),
                "o_state": Out(stream.Signature(state(config))),
                "bad_message": Out(1),
                "fault": Out(MessageFault),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        bus = config.bus_bytes
        beat = self.i_axis.payload
        header_beats = max(1, HEADER_BYTES // bus)
        entries_per_beat = bus // 4

        header = Signal(header_layout())
        beats = Signal(range(2 * config.d_max // bus + 1))
        entry = Signal(8)
        lane = Signal(range(entries_per_beat))

        m.submodules.hint_queue = hint_queue = SyncFIFOBuffered(
            width=prediction(config).size, depth=config.experts_total_max
        )
        hint = Signal(prediction(config))
        m.d.comb += [
            self.o_hint.valid.eq(hint_queue.r_rdy),
            self.o_hint.payload.eq(hint_queue.r_data),
            hint_queue.r_en.eq(self.o_hint.ready),
        ]
        # Hints wait for a layer to execute, and the token of that layer comes behind them: they must never hold up the stream.
        keep_hint, hint_valid = Signal(), Signal()
        m.d.sync += [hint_queue.w_en.eq(hint_valid), hint_queue.w_data.eq(hint)]

        # One entry of a routing or hint section: picked from the beat on the bus in one cycle, looked at in the next.
        word, picked = Signal(32, reset_less=True), Signal()
        m.d.sync += picked.eq(0)
        with m.If(self.i_axis.valid):
            m.d.sync += word.eq(Array([beat.data[32 * i : 32 * i + 32] for i in range(entries_per_beat)])[lane])
        last_entry = Signal()
        beat_done = Signal()
        experts_total = Signal(range(config.experts_total_max + 1))
        m.d.comb += [
            last_entry.eq(entry + 1 == header.count),
            beat_done.eq(last_entry | (lane == entries_per_beat - 1)),
            self.o_token.payload.layer.eq(header.layer),
            self.o_token.payload.exponent.eq(header.exponent),
            self.o_token.payload.sequence.eq(header.sequence),
            self.o_token.payload.token.eq(header.token),
            self.o_token.payload.word.eq(header.word),
            hint.ref.layer.eq(header.layer),
            hint.ref.expert.eq(word[0:12]),
            hint.score.eq(word[12 : 12 + SCORE_BITS]),
            hint.last.eq(last_entry),
        ]
        m.d.sync += experts_total.eq(self.shape.experts + self.shape.shared)
        with m.If(self.o_word.ready):
            m.d.sync += self.o_word.valid.eq(0)
        # Beats go out through registers: their sinks are far apart.
        x_valid, state_valid = Signal(), Signal()
        for event, valid in ((self.x_write, x_valid), (self.state_write, state_valid)):
            address, word_out = Signal.like(event.address, reset_less=True), Signal.like(event.data, reset_less=True)
            m.d.sync += event.valid.eq(valid)
            with m.If(self.i_axis.valid):
                m.d.sync += [address.eq(beats), word_out.eq(beat.data)]
            m.d.comb += [event.address.eq(address), event.data.eq(word_out)]
        with m.If(self.o_state.ready | state_valid):
            m.d.sync += self.o_state.valid.eq(0)
        fault = self.fault
        next_entry = [entry.eq(entry + 1), lane.eq(Mux(beat_done, 0, lane + 1))]
        ended = Signal()  # the header's last beat was the message's last

        with m.FSM(name="parser"):
            with m.State("HEADER"):
                m.d.comb += self.i_axis.ready.eq(1)
                m.d.comb += self.idle.eq((beats == 0) & ~self.i_axis.valid)
                with m.If(self.i_axis.valid):
                    if header_beats == 1:
                        m.d.sync += header.eq(beat.data[: 8 * HEADER_BYTES])
                    else:
                        m.d.sync += header.eq(Cat(header.as_value()[8 * bus :], beat.data))
                    m.d.sync += beats.eq(beats + 1)
                    with m.If(beats == header_beats - 1):
                        m.d.sync += [beats.eq(0), ended.eq(beat.last)]
                        m.next = "CHECK"
                    with m.Elif(beat.last):
                        m.d.sync += fault.eq(MessageFault.LENGTH)
                        m.next = "BAD_MESSAGE"
            with m.State("CHECK"):
                m.d.sync += [entry.eq(0), lane.eq(0), self.o_token.payload.external.eq(header.kind == KIND_ROUTED)]
                room = hint_queue.depth - hint_queue.w_level
                m.d.sync += keep_hint.eq(self.hints & Mux(header.count == 0, room != 0, header.count <= room))
                counts = {
                    KIND_ACTIVATIONS: header.count == 0,
                    KIND_ROUTED: header.count == self.shape.top_k,
                    KIND_HINT: header.count <= experts_total,
                    KIND_WORD: header.count == 0,
                    KIND_STATE: header.count == 0,
                }
                empty_hint = (header.kind == KIND_HINT) & (header.count == 0)
                is_word = header.kind == KIND_WORD
                m.d.sync += fault.eq(MessageFault.KIND)
                m.next = "BAD_MESSAGE"
                for kind, state in (
                    (KIND_ACTIVATIONS, "ACTIVATIONS"),
                    (KIND_ROUTED, "ROUTING"),
                    (KIND_HINT, "HINT"),
                    (KIND_WORD, "WORD"),
                    (KIND_STATE, "STATE"),
                ):
                    with m.If(header.kind == kind):
                        with m.If((header.layer >= self.shape.layers) | (is_word & (header.layer != 0))):
                            m.d.sync += fault.eq(MessageFault.LAYER)
                        with m.Elif(~counts[kind]):
                            m.d.sync += fault.eq(MessageFault.COUNT)
                        with m.Elif(ended != (empty_hint | is_word)):
                            # Only an empty hint and a word end with their header.
                            m.d.sync += fault.eq(MessageFault.LENGTH)
                        with m.Elif(empty_hint):
                            m.next = "EMPTY_HINT"
                        with m.Else():
                            m.next = state
            with m.State("WORD"):
                m.d.sync += [
                    self.o_word.valid.eq(1),
                    self.o_word.payload.sequence.eq(header.sequence),
                    self.o_word.payload.token.eq(header.token),
                    self.o_word.payload.word.eq(header.word),
                ]
                m.next = "HEADER"
            with m.State("EMPTY_HINT"):
                m.d.comb += [hint.none.eq(1), hint.last.eq(1), hint_valid.eq(keep_hint)]
                m.next = "HEADER"
            with m.State("HINT"):
                known = Signal()
                legal = Signal()
                m.d.comb += [
                    known.eq(word[0:12] < experts_total),
                    legal.eq(known & (~beat_done | (beat.last == last_entry))),
                    hint_valid.eq(picked & legal & keep_hint),
                    self.i_axis.ready.eq(picked & beat_done & legal),
                ]
                m.d.sync += picked.eq(self.i_axis.valid & ~picked)
                with m.If(picked & ~legal):
                    m.d.sync += fault.eq(Mux(known, MessageFault.LENGTH, MessageFault.EXPERT))
                    m.next = "BAD_MESSAGE"
                with m.Elif(picked):
                    m.d.sync += next_entry
                    with m.If(last_entry):
                        m.next = "HEADER"
            with m.State("ROUTING"):
                m.d.comb += self.i_axis.ready.eq(picked & beat_done)
                m.d.sync += picked.eq(self.i_axis.valid & ~picked)
                # An expert in two slots would be computed for one of them, and the other waited for without end.
                repeated = Signal()
                m.d.comb += repeated.eq(
                    Cat((entry > j) & (self.external_ids[j] == word[0:12]) for j in range(config.top_k_max)).any()
                )
                with m.If(picked):
                    m.d.sync += next_entry
                    for j in range(config.top_k_max):
                        with m.If(entry == j):
                            m.d.sync += self.external_ids[j].eq(word[0:12])
                            m.d.sync += self.external_weights[j].eq(word[12:32])
                    with m.If((word[0:12] >= self.shape.experts) | repeated):
                        m.d.sync += fault.eq(MessageFault.EXPERT)
                        m.next = "BAD_MESSAGE"
                    with m.Elif(beat_done & beat.last):
                        m.d.sync += fault.eq(MessageFault.LENGTH)
                        m.next = "BAD_MESSAGE"
                    with m.Elif(last_entry):
                        m.next = "ACTIVATIONS"
            for state_name, write, wanted, following in (
                ("ACTIVATIONS", x_valid, 1, "TOKEN"),
                ("STATE", state_valid, self.states, "OFFER"),
            ):
                with m.State(state_name):
                    m.d.comb += [self.i_axis.ready.eq(1), write.eq(self.i_axis.valid & wanted)]
                    with m.If(self.i_axis.valid):
                        m.d.sync += beats.eq(beats + 1)
                        with m.If(beat.last != (beats + 1 == self.shape.d_beats)):
                            m.d.sync += fault.eq(MessageFault.LENGTH)
                            m.next = "BAD_MESSAGE"
                        with m.Elif(beat.last):
                            m.d.sync += beats.eq(0)
                            m.next = following
            with m.State("OFFER"):
                m.d.sync += [
                    self.o_state.valid.eq(self.states),
                    self.o_state.payload.layer.eq(header.layer),
                    self.o_state.payload.exponent.eq(header.exponent),
                    self.o_state.payload.sequence.eq(header.sequence),
                    self.o_state.payload.token.eq(header.token),
                ]
                m.next = "HEADER"
            with m.State("TOKEN"):
                m.d.comb += self.o_token.valid.eq(1)
                with m.If(self.o_token.ready):
                    m.next = "HEADER"
            with m.State("BAD_MESSAGE"):
                m.d.comb += self.bad_message.eq(1)
                m.next = "STOPPED"
            with m.State("STOPPED"):
                m.d.comb += self.idle.eq(1)
        return m
