"""The states of a run: start, run, halt, stop."""

from amaranth import Module, Signal, ValueLike, unsigned
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.control.settings import error_event, params_layout, settings_layout
from stmoe.hw.control.start_check import StartCheck
from stmoe.hw.layouts import shape_layout
from stmoe.model.config import EngineConfig
from stmoe.model.error_codes import ErrorCode

#: Cycles of a stop before ``i_quiescent`` is looked at: what the core lets through until it hears of it shows as late.
STOP_CYCLES = 4


class RunState(enum.Enum, shape=unsigned(3)):
    """Where a run stands."""

    IDLE = 0
    LATCHING = 1  #: start: the settings are being copied, then checked
    CHECKED = 2  #: start: run or refuse
    RUNNING = 3
    HALTED = 4  #: an error, until stopped
    STOPPING = 5  #: waiting for outstanding transfers


class RunControl(wiring.Component):
    """Has the settings copied at start, checks the copy, and runs or refuses; halts on an error; stops in order.

    Latency: ``o_latch`` in the cycle of ``i_start``; ``o_running`` rises 2 cycles after ``i_latched``. A stop wins over anything in the
    same cycle. It waits ``STOP_CYCLES``, in which the last transfers show, and for ``i_quiescent``, pulses ``o_reset`` for a cycle, and
    clears the error. Settings written while running wait for the next start.
    Reset: IDLE, no error.

    Parameters
    ----------
    config : the build.

    Members
    -------
    o_latch : Out, pulse: copy the settings. ``i_latched``: In, pulse: they are copied.
    settings : In, ``settings_layout``: the copy.
    i_start, i_stop : In, pulses.
    i_error : In, ``error_event``; ignored unless running.
    i_quiescent : In, no transfer is outstanding.
    i_tables : In, pulse: the tables are to be saved or loaded. ``i_tables_free``: In, level: they can be.
    o_tables : Out, pulse, in the same cycle: ``i_tables`` is not refused.
    o_state : Out, ``RunState``.
    o_start : Out, pulse: the first cycle of ``o_running``.
    o_running : Out, take messages. When it falls, begin no new transfer.
    o_reset : Out, pulse: everything outstanding has ended, reset the engine.
    o_error : Out, ``error_event``: the last error (``code`` 0: none).
    o_raised : Out, pulse: an error was met, or a start refused.
    shape, params : Out, stable from ``o_start`` to ``o_reset``.
    """

    def __init__(self, config: EngineConfig):
        self.config = config
        super().__init__(
            {
                "o_latch": Out(1),
                "i_latched": In(1),
                "settings": In(settings_layout(config)),
                "i_start": In(1),
                "i_stop": In(1),
                "i_error": In(error_event()),
                "i_quiescent": In(1),
                "i_tables": In(1),
                "i_tables_free": In(1),
                "o_tables": Out(1),
                "o_state": Out(RunState),
                "o_start": Out(1),
                "o_running": Out(1),
                "o_reset": Out(1),
                "o_error": Out(error_event()),
                "o_raised": Out(1),
                "shape": Out(shape_layout(config)),
                "params": Out(params_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.check = check = StartCheck(self.config)
        state, error = self.o_state, self.o_error
        left = Signal(range(STOP_CYCLES + 1), reset_less=True)
        m.d.comb += [
            check.settings.eq(self.settings),
            self.shape.eq(check.o_shape),
            self.params.eq(check.o_params),
            self.o_tables.eq(self.i_tables & self.i_tables_free & self.o_running),
        ]

        def refuse(code: ErrorCode, detail: ValueLike = 0):
            m.d.comb += self.o_raised.eq(1)
            m.d.sync += [error.eq(0), error.code.eq(code), error.detail.eq(detail)]

        # ``o_running`` is RUNNING in a register of its own, as ``o_start`` is: both go everywhere.
        m.d.sync += self.o_start.eq(0)
        # What halted the engine stays to be read; what follows here is worth more.
        with m.If(self.i_tables & ~self.o_tables & (state != RunState.HALTED)):
            refuse(ErrorCode.TABLES)
        with m.Switch(state):
            with m.Case(RunState.IDLE), m.If(self.i_start):
                with m.If(self.i_quiescent):
                    m.d.comb += self.o_latch.eq(1)
                    m.d.sync += state.eq(RunState.LATCHING)
                with m.Else():
                    refuse(ErrorCode.BUSY)
            with m.Case(RunState.LATCHING), m.If(self.i_latched):
                m.d.sync += state.eq(RunState.CHECKED)
            with m.Case(RunState.CHECKED):
                m.d.sync += state.eq(RunState.IDLE)
                with m.If(check.o_untouched):
                    refuse(ErrorCode.UNCONFIGURED)
                with m.Elif(check.o_rule != 0):
                    refuse(ErrorCode.CONFIG, check.o_rule)
                with m.Else():
                    m.d.sync += [state.eq(RunState.RUNNING), self.o_running.eq(1), self.o_start.eq(1), error.eq(0)]
            with m.Case(RunState.RUNNING):
                with m.If(self.i_error.valid):
                    m.d.comb += self.o_raised.eq(1)
                    m.d.sync += [error.eq(self.i_error), state.eq(RunState.HALTED), self.o_running.eq(0)]
                with m.Elif(self.i_start):
                    refuse(ErrorCode.BUSY)
            with m.Case(RunState.HALTED), m.If(self.i_start):
                # The error that halted stays to be read.
                m.d.comb += self.o_raised.eq(1)
            with m.Case(RunState.STOPPING):
                m.d.sync += left.eq(left - (left != 0))
                with m.If((left == 0) & self.i_quiescent):
                    m.d.comb += self.o_reset.eq(1)
                    m.d.sync += [error.eq(0), state.eq(RunState.IDLE)]
        with m.If(self.i_stop):
            m.d.sync += [left.eq(STOP_CYCLES), state.eq(RunState.STOPPING), self.o_running.eq(0), self.o_start.eq(0)]
        return m
