"""The core of the engine: everything between the activation streams and the AXI port. Wiring only.

    messages -> frontend -> sequencer -> router | prefetch engine | buffer manager | demand loader | datapath -> result -> messages

Registers and counters stand outside (``hw/top.py``), so that stopping resets the core and keeps what software wrote.
"""

# Component members come from the signature at run time: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.buffer.demand import DemandLoader
from stmoe.hw.buffer.manager import BufferManager
from stmoe.hw.buffer.port import CommandPort
from stmoe.hw.compute.datapath import ExpertDatapath
from stmoe.hw.control.counters import increments_layout
from stmoe.hw.control.faults import Faults
from stmoe.hw.control.frontend import Frontend, axis_layout
from stmoe.hw.control.result import Result
from stmoe.hw.control.sequencer import Phase, Sequencer
from stmoe.hw.control.settings import error_event, params_layout
from stmoe.hw.layouts import Destination, buffer_response, fetch_request, landed, shape_layout
from stmoe.hw.memory.axi import Axi
from stmoe.hw.memory.dma import DmaReader
from stmoe.hw.memory.merge import Merge
from stmoe.hw.predictor.prediction import PredictionUnit
from stmoe.hw.prefetch.engine import PrefetchEngine
from stmoe.hw.prefetch.window_limit import WindowLimit
from stmoe.hw.register_slice import RegisterSlice
from stmoe.hw.router.loader import RouterLoader
from stmoe.hw.router.router import RouterUnit
from stmoe.model.config import EngineConfig
from stmoe.model.numerics import ONE_WEIGHT, WEIGHT_BITS
from stmoe.model.policy import Policy

#: Cycles of outward calm after which nothing moves inside: longer than any pipeline that no ``busy`` covers.
SETTLE = 15


class Core(wiring.Component):
    """Computes MoE layers: messages in, results out, experts from AXI.

    Latency and throughput: docs/theory.md, "One layer". Backpressure: one token at a time. Reset: empty buffer, nothing learned; it
    must not come while ``transferring``.

    Members
    -------
    shape, params : In, the model and the run-time parameters; stable while ``running``.
    running : In, messages are taken and fetches begun.
    clear_tables, save_tables, load_tables : In, pulses: the predictor forgets; its tables go to DRAM, come from there.
    i_axis, o_axis : message streams.
    axi : AXI4 master.
    transferring : Out, level: a fetch is outstanding, or tables are being written; up to 2 cycles after ``running`` fell it may rise.
    tables_busy : Out, level: a command for the tables is not done. ``tables_done``: Out, pulse: a save or load is.
    quiescent : Out, level: nothing changes until a message comes.
    done : Out, pulse: a result's last beat was taken.
    error : Out, event.
    increments : Out, what each counter adds in this cycle.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "params": In(params_layout(config)),
                "running": In(1),
                "clear_tables": In(1),
                "save_tables": In(1),
                "load_tables": In(1),
                "i_axis": In(stream.Signature(axis_layout(config))),
                "o_axis": Out(stream.Signature(axis_layout(config))),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
                "transferring": Out(1),
                "tables_busy": Out(1),
                "tables_done": Out(1),
                "quiescent": Out(1),
                "done": Out(1),
                "error": Out(error_event()),
                "increments": Out(increments_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.frontend = self.frontend = Frontend(config)
        m.submodules.router_loader = self.router_loader = RouterLoader(config)
        m.submodules.router = self.router = RouterUnit(config)
        m.submodules.sequencer = self.sequencer = Sequencer(config)
        m.submodules.prediction = self.prediction = PredictionUnit(config)
        m.submodules.prefetch = self.prefetch = PrefetchEngine(config)
        m.submodules.manager = self.manager = BufferManager(config)
        m.submodules.demand = self.demand = DemandLoader(config)
        m.submodules.dma = self.dma = DmaReader(config)
        m.submodules.datapath = self.datapath = ExpertDatapath(config)
        m.submodules.result = self.result = Result(config)
        # ``counts``: what went wrong with it is a fault of the run.
        self.passed = Signal(data.StructLayout({"valid": 1, "counts": 1, "payload": landed(config)}))
        for block in (self.frontend, self.router, self.sequencer, self.prediction, self.datapath, self.result):
            m.d.comb += block.shape.eq(self.shape)

        self._messages(m)
        self._routing(m)
        self._prediction(m)
        self._buffer(m)
        self._memory(m)
        self._execution(m)
        self._status(m)
        return m

    def _messages(self, m: Module):
        """Streams from and to the outside, and the token from the frontend to the sequencer."""
        frontend, sequencer = self.frontend, self.sequencer
        m.d.comb += [
            frontend.i_axis.payload.eq(self.i_axis.payload),
            frontend.i_axis.valid.eq(self.i_axis.valid & self.running),
            self.i_axis.ready.eq(frontend.i_axis.ready & self.running),
            frontend.hints.eq(self.prediction.hints),
            frontend.states.eq(self.prediction.states),
            sequencer.evict.eq(self.params.policy == Policy.NONE),
            sequencer.learn.eq(self.prediction.learns),
            sequencer.halt.eq(~self.running),
        ]
        connect(m, frontend.o_token, sequencer.i_token)
        connect(m, self.result.o_axis, flipped(self.o_axis))
        connect(m, sequencer.o_result, self.result.i_token)

    def _routing(self, m: Module):
        """Router and its weights; the routing that came along goes the same way."""
        router, loader, sequencer, params = self.router, self.router_loader, self.sequencer, self.params
        external = router.i_external
        m.d.comb += [
            loader.base.eq(params.router_base),
            loader.stride.eq(params.router_bytes),
            loader.beats.eq(params.router_bytes // self.config.bus_bytes),
            loader.image_id.eq(params.image_id),
            loader.i_landed.eq(self.passed.payload),
            loader.landed_valid.eq(self.passed.valid),
            sequencer.router_slot.eq(loader.slot),
            router.exponent.eq(self.frontend.o_token.payload.exponent),
            router.i_x.eq(self.frontend.x_write),
            router.i_write.eq(self.dma.o_router),
            router.i_start.payload.slot.eq(sequencer.o_route.payload),
            router.i_start.valid.eq(sequencer.o_route.valid & ~sequencer.use_external),
            external.payload.selected.count.eq(self.shape.top_k),
            external.payload.selected.ids.eq(self.frontend.external_ids),
            external.payload.weights.eq(self.frontend.external_weights),
            external.valid.eq(sequencer.o_route.valid & sequencer.use_external),
            sequencer.o_route.ready.eq(Mux(sequencer.use_external, external.ready, router.i_start.ready)),
            sequencer.i_ids.valid.eq(router.o_ids.valid),
            sequencer.i_ids.payload.eq(router.o_ids.payload.ids),
            router.o_ids.ready.eq(sequencer.i_ids.ready),
        ]
        connect(m, sequencer.o_want, loader.i_want)

    def _prediction(self, m: Module):
        """What the predictors hear, and their answers to the prefetch engine."""
        prediction, prefetch, frontend, params = self.prediction, self.prefetch, self.frontend, self.params
        connect(m, self.sequencer.o_routed, prediction.i_routed)
        connect(m, frontend.o_word, prediction.i_word)
        connect(m, frontend.o_state, prediction.i_state)
        connect(m, frontend.o_hint, prediction.i_hint)
        connect(m, prediction.o_prediction, prefetch.i_prediction)
        connect(m, self.sequencer.o_verify, prefetch.i_verify)
        m.d.comb += [
            prediction.params.eq(params),
            prediction.x_layer.eq(frontend.o_token.payload.layer),
            prediction.i_x.eq(frontend.x_write),
            prediction.i_state_x.eq(frontend.state_write),
            prediction.exponent.eq(frontend.o_token.payload.exponent),
            prediction.weights.eq(self.router.o_weights),
            prediction.hint_go.eq(self.sequencer.hint_go),
            prediction.clear_tables.eq(self.clear_tables),
            prediction.save_tables.eq(self.save_tables),
            prediction.load_tables.eq(self.load_tables),
            prediction.i_table_word.eq(self.dma.o_table),
            prediction.i_section.eq(self.dma.o_hidden),
            prediction.i_landed.eq(self.passed.payload),
            prediction.landed_valid.eq(self.passed.valid),
            self.tables_busy.eq(prediction.tables_busy),
            self.tables_done.eq(prediction.tables_done),
            prefetch.enable.eq(prediction.prefetches),
            prefetch.budget.eq(params.prefetch_budget),
            prefetch.worth.eq(params.prefetch_worth),
            prefetch.demote.eq(params.demote),
        ]

    def _buffer(self, m: Module):
        """Who may ask the buffer manager for what."""
        manager, demand, prefetch, sequencer = self.manager, self.demand, self.prefetch, self.sequencer
        m.submodules.port = port = CommandPort(self.config)
        connect(m, sequencer.o_command, port.i_sequencer)
        connect(m, port.o_sequencer, sequencer.i_response)
        connect(m, demand.o_command, port.i_demand)
        connect(m, port.o_demand, demand.i_response)
        connect(m, port.o_command, manager.i_engine)
        connect(m, manager.o_engine, port.i_response)
        connect(m, prefetch.o_command, manager.i_prefetch)
        # Manager and prefetch engine lie far apart.
        m.submodules.apart = apart = RegisterSlice(buffer_response(self.config))
        connect(m, manager.o_prefetch, apart.i)
        connect(m, apart.o, prefetch.i_response)
        connect(m, sequencer.o_selected, demand.i_selected)
        connect(m, manager.o_ready, self.datapath.i_ready)
        # From the verified routing until the last missing chunk is allocated, nobody else allocates.
        pinning = (sequencer.phase == Phase.VERIFY) | (sequencer.phase == Phase.PIN)
        m.submodules.window_limit = self.window_limit = WindowLimit()
        # In a register, since all of it is far from the prefetch engine; that somebody else allocates is known at once, and for longer.
        held = Signal()
        m.d.sync += held.eq(pinning | demand.busy | self.window_limit.over)
        m.d.comb += [
            self.window_limit.limit.eq(self.params.prefetch_window),
            prefetch.hold.eq(pinning | held),
        ]

    def _memory(self, m: Module):
        """The DMA's two classes of requests, and where landings go."""
        dma, demand, prefetch, loader, params = self.dma, self.demand, self.prefetch, self.router_loader, self.params
        m.submodules.fetches = fetches = Merge(fetch_request(self.config))
        m.submodules.rare = rare = Merge(fetch_request(self.config))
        for block in (demand, prefetch):
            m.d.comb += [
                block.image.model.eq(self.shape),
                block.image.base.eq(params.expert_base),
                block.image.id.eq(params.image_id),
            ]
        connect(m, demand.o_fetch, fetches.i_first)
        connect(m, rare.o, fetches.i_second)
        connect(m, loader.o_fetch, rare.i_first)
        connect(m, self.prediction.o_fetch, rare.i_second)
        m.submodules.early = early = Merge(fetch_request(self.config))
        connect(m, self.prediction.o_row_fetch, early.i_first)
        connect(m, prefetch.o_fetch, early.i_second)
        # ``running`` in a register that lies near: it lets through for a cycle longer.
        self.fetching = Signal()
        m.d.sync += self.fetching.eq(self.running)
        for source, sink in ((fetches.o, dma.i_demand), (early.o, dma.i_prefetch)):
            m.d.comb += [
                sink.payload.eq(source.payload),
                sink.valid.eq(source.valid & self.fetching),
                source.ready.eq(sink.ready & self.fetching),
            ]
        for master, base, limit, channels in (
            (dma, params.read_base, params.read_limit, ("ar", "r")),
            (self.prediction, params.write_base, params.write_limit, ("aw", "w", "b")),
        ):
            m.d.comb += [master.window.base.eq(base), master.window.limit.eq(limit)]
            for name in channels:
                connect(m, getattr(master.axi, name), flipped(getattr(self.axi, name)))
        m.d.sync += dma.promote.eq(prefetch.promote | self.prediction.row_urgent)
        # A copy of what has been taken, for those who only listen.
        m.d.sync += [
            self.passed.valid.eq(dma.o_landed.valid & dma.o_landed.ready),
            self.passed.payload.eq(dma.o_landed.payload),
            self.passed.counts.eq(~self._of_rows() | self.prediction.row_fault),
        ]
        chunk = dma.o_landed.payload.destination == Destination.BUFFER
        rows = self.prediction.i_row_landed
        m.d.comb += [
            rows.payload.eq(dma.o_landed.payload),
            rows.valid.eq(dma.o_landed.valid & self._of_rows()),
            dma.abort.eq(prefetch.abort),
            dma.hold.eq(self.prediction.hold),
            self.manager.i_landed.payload.eq(dma.o_landed.payload),
            self.manager.i_landed.valid.eq(dma.o_landed.valid & chunk),
            dma.o_landed.ready.eq(Mux(chunk, self.manager.i_landed.ready, rows.ready | ~self._of_rows())),
            prefetch.i_landed.valid.eq(self.manager.i_landed.valid & self.manager.i_landed.ready),
            prefetch.i_landed.landed.eq(dma.o_landed.payload),
        ]

    def _of_rows(self):
        """What lands is a row of STP's, which are the only prefetches of tables."""
        landed = self.dma.o_landed.payload
        return landed.prefetch & (landed.destination == Destination.TABLES)

    def _execution(self, m: Module):
        """Tiles, combine and the result."""
        datapath, sequencer, router, result = self.datapath, self.sequencer, self.router, self.result
        weights = Signal(data.ArrayLayout(WEIGHT_BITS, self.config.slots_max))
        for j in range(self.config.slots_max):
            # Shared experts follow the routed ones, with weight 1.
            routed = router.o_weights.values[min(j, self.config.top_k_max - 1)]
            m.d.comb += weights[j].eq(Mux(j < self.shape.top_k, routed, ONE_WEIGHT))
        m.d.comb += [
            datapath.exponent.eq(self.frontend.o_token.payload.exponent),
            datapath.x16.eq(self.frontend.x_write),
            datapath.write.eq(self.dma.o_write),
            datapath.start.eq(sequencer.start),
            datapath.slots.eq(sequencer.slots),
            datapath.split.eq(self.params.split),
            datapath.serial.eq(self.params.serial),
            datapath.weights.eq(weights),
            datapath.weights_valid.eq(router.o_weights.valid),
            result.ids.eq(sequencer.slot_ids),
            result.weights.eq(weights),
            result.weights_valid.eq(router.o_weights.valid),
        ]
        connect(m, datapath.o_y, result.i_y)

    def _status(self, m: Module):
        """Errors, calm, and what the counters count."""
        dma, sequencer, datapath = self.dma, self.sequencer, self.datapath
        prefetch, frontend = self.prefetch, self.frontend
        m.submodules.faults = faults = Faults(self.config)
        m.d.comb += [
            faults.bad_message.eq(frontend.bad_message),
            faults.message_fault.eq(frontend.fault),
            faults.i_landed.eq(self.passed.payload),
            faults.landed_valid.eq(self.passed.valid & self.passed.counts),
            faults.tables_failed.eq(self.prediction.tables_failed),
            self.error.eq(faults.error),
        ]

        window = (sequencer.phase == Phase.WINDOW) & frontend.idle & ~frontend.o_token.valid
        moving = (
            ~window
            | dma.busy
            | dma.i_demand.valid
            | dma.i_prefetch.valid
            | self.manager.busy
            | self.prediction.busy
            | prefetch.busy
            | self.demand.busy
            | self.router_loader.loading
        )
        calm = Signal(range(SETTLE + 1))
        with m.If(moving):
            m.d.sync += calm.eq(0)
        with m.Elif(calm != SETTLE):
            m.d.sync += calm.eq(calm + 1)
        m.d.sync += self.transferring.eq(dma.busy | self.prediction.writing)
        m.d.comb += [
            self.quiescent.eq((calm == SETTLE) & ~moving),
            self.done.eq(self.o_axis.valid & self.o_axis.ready & self.o_axis.payload.last),
        ]

        executing = sequencer.phase == Phase.EXECUTE
        # The predictor may still be learning from a layer whose result is out.
        answered = executing & ~sequencer.o_result.valid
        after_first = frontend.o_token.payload.layer != 0
        waiting = self.running & (window | answered | (sequencer.phase == Phase.RELEASE))
        m.d.sync += self.window_limit.waiting.eq(waiting)
        counts = {
            "cycles": self.running,
            "token_layers": self.done,
            "window": waiting,
            "router_cycles": sequencer.phase == Phase.ROUTE,
            "stall_demand": executing & ~datapath.busy.any() & dma.c_demand_pending,
            "stall_router_weights": sequencer.phase == Phase.ROUTER_WEIGHTS,
            "compute_busy": datapath.busy.any(),
            "tile_busy": sum(datapath.busy, start=0),
            "tile_useful": sum(datapath.useful, start=0),
            "h8_saturations": sum(datapath.saturated, start=0),
            "demand_pending": dma.c_demand_pending,
            "read_beats_demand_pending": dma.c_read_beat & dma.c_demand_pending,
            "demand_beats": dma.c_demand_beats,
            "prefetch_beats": dma.c_prefetch_beats,
            "router_beats": dma.o_router.valid,
            "hidden_beats": dma.o_hidden.valid,
            "row_beats": self.prediction.c_row_read,
            "row_written_beats": self.prediction.c_row_written,
            "void_rows": self.prediction.c_row_void,
            "expert_hits": sequencer.hit,
            "expert_partial": sequencer.partial,
            "demand_misses": sequencer.miss,
            "demand_chunks": self.demand.c_chunks,
            "late_chunks": sequencer.late,
            "predicted": prefetch.c_predicted & after_first,
            "predicted_useful": prefetch.c_useful & after_first,
            "prefetched_experts": prefetch.c_experts,
            "prefetch_chunks": prefetch.c_chunks,
            "prefetch_aborted": prefetch.c_aborted,
            "prefetch_useful_chunks": prefetch.c_useful_chunk,
            "prefetch_wasted_chunks": prefetch.c_wasted_chunk,
            "evicted_frames": self.manager.c_evicted,
        }
        m.d.comb += [self.increments[name].eq(value) for name, value in counts.items()]
