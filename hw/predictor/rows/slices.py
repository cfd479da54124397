"""STP's rows on chip: weights in slices, visits apart."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from stmoe.hw.memory.deep_sram import DeepSram
from stmoe.hw.memory.sram import Sram
from stmoe.hw.predictor.stp_learning import stp_row, stp_slice
from stmoe.hw.predictor.stp_sources import table_rows
from stmoe.model.config import EngineConfig, clog2


def slice_place(config: EngineConfig) -> data.StructLayout:
    """Event: a slice of a row is meant."""
    return data.StructLayout({"valid": 1, "row": clog2(table_rows(config)), "slice": clog2(config.stp_slices)})


class SlicedTable(wiring.Component):
    """Two memories, read through registers: what a block RAM gives comes so late that nothing else fits into its cycle.

    A slice is read, and another one written, every cycle; a read of what is being written is undefined. A whole row is read or written
    for ``TableWalk`` instead, s slices, while ``walk_reads`` or ``walk_writes`` and nothing else: s + 2 or s cycles.

    Parameters
    ----------
    config : the build.

    Members
    -------
    visits_place, weights_place : event, what is read.
    visits : Out, ``VISITS`` cycles later, until the next. ``weights``: Out, ``WEIGHTS`` cycles later.
    write_place : event; ``write_weights`` are written, and with ``write_last`` its row's ``write_visits``.
    walk_reads, walk_writes, walk_row, walk_data : In, levels, until ``walked``.
    walked : Out, level, in the last cycle of it. ``row``: Out, from the next cycle on, what was read.
    """

    VISITS = 2
    WEIGHTS = 2

    def __init__(self, config: EngineConfig):
        self.config = config
        place, visit_bits = slice_place(config), config.stp_fitted.visit_bits
        super().__init__(
            {
                "visits_place": In(place),
                "visits": Out(visit_bits),
                "weights_place": In(place),
                "weights": Out(stp_slice(config)),
                "write_place": In(place),
                "write_last": In(1),
                "write_weights": In(stp_slice(config)),
                "write_visits": In(visit_bits),
                "walk_reads": In(1),
                "walk_writes": In(1),
                "walk_row": In(clog2(table_rows(config))),
                "walk_data": In(stp_row(config)),
                "walked": Out(1),
                "row": Out(stp_row(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        slices, rows = config.stp_slices, table_rows(config)
        slice_bits = (slices - 1).bit_length()
        m.submodules.weights = weights = DeepSram(stp_slice(config).size, rows * slices, config.block_words)
        m.submodules.visits = visits = Sram(config.stp_fitted.visit_bits, rows, registered=True)

        # The cycle of a walk's row: slices are read or written first.
        step = Signal(range(slices + 2))
        within = step < slices
        walks = self.walk_reads | self.walk_writes
        m.d.comb += self.walked.eq((self.walk_reads & (step == slices + 1)) | (self.walk_writes & (step == slices - 1)))
        m.d.sync += step.eq(Mux(walks & ~self.walked, step + 1, 0))

        def address(row, slice_):
            return Cat(slice_[:slice_bits], row)

        m.d.comb += [
            visits.read_addr.eq(Mux(self.walk_reads, self.walk_row, self.visits_place.row)),
            visits.read_en.eq(self.visits_place.valid | self.walk_reads),
            weights.read_addr.eq(
                Mux(
                    self.walk_reads,
                    address(self.walk_row, step),
                    address(self.weights_place.row, self.weights_place.slice),
                )
            ),
            weights.read_en.eq(self.weights_place.valid | (self.walk_reads & within)),
            visits.write_en.eq((self.write_place.valid & self.write_last) | self.walk_writes),
            weights.write_en.eq(self.write_place.valid | self.walk_writes),
        ]
        # What is not learned is the walk's: whether it writes is known late.
        learns = self.write_place.valid
        piece = self.walk_data.weights.as_value().word_select(step[:slice_bits], stp_slice(config).size)
        learned = address(self.write_place.row, self.write_place.slice)
        m.d.comb += [
            visits.write_addr.eq(Mux(learns, self.write_place.row, self.walk_row)),
            visits.write_data.eq(Mux(learns, self.write_visits, self.walk_data.visits)),
            weights.write_addr.eq(Mux(learns, learned, address(self.walk_row, step))),
            weights.write_data.eq(Mux(learns, self.write_weights.as_value(), piece)),
        ]

        walked_slice = Signal(2)
        m.d.sync += walked_slice.eq(Cat(self.walk_reads & within, walked_slice))
        kept = Signal(config.experts_max * config.stp_fitted.weight_bits, reset_less=True)
        with m.If(walked_slice[1]):
            m.d.sync += kept.eq(Cat(kept, weights.read_data)[weights.width :])
        m.d.comb += [
            self.weights.eq(weights.read_data),
            self.visits.eq(visits.read_data),
            self.row.weights.eq(kept),
            self.row.visits.eq(visits.read_data),
        ]
        return m
