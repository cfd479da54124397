"""STP with rows in DRAM, behind the DMA reader and writer of the engine: what tests run."""

# Component members come from the signature at run time, and m.If is no context manager to it: pyright cannot see them.
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from stmoe.hw.layouts import (
    SCORE_BITS,
    Destination,
    TableCommand,
    announcement,
    fetch_request,
    prediction,
    routed,
    shape_layout,
)
from stmoe.hw.memory.axi import Axi
from stmoe.hw.memory.dma import DmaReader
from stmoe.hw.memory.writer import DmaWriter
from stmoe.hw.predictor.stp import StpPredictor

IMAGE_ID, BASE = 0x5A17C0DE, 0x1020


class RowsInDram(wiring.Component):
    """``i_demand`` is what else is read, from ``base`` up to ``limit``, the only window there is."""

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "shape": In(shape_layout(config)),
                "threshold": In(SCORE_BITS),
                "i_routed": In(stream.Signature(routed(config))),
                "i_word": In(stream.Signature(announcement())),
                "o_prediction": Out(stream.Signature(prediction(config))),
                "i_command": In(stream.Signature(TableCommand)),
                "i_demand": In(stream.Signature(fetch_request(config))),
                "abort": In(1),
                "base": In(self.config.addr_bits),
                "limit": In(self.config.addr_bits),
                "image_id": In(32),
                "axi": Out(Axi(config.addr_bits, config.bus_bytes)),
                "busy": Out(1),
                "writing": Out(1),
                "faulty": Out(1),
                "voids": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.predictor = predictor = StpPredictor(self.config)
        m.submodules.dma = dma = DmaReader(self.config)
        m.submodules.writer = writer = DmaWriter(self.config)
        rows = predictor.rows
        for inner, outer in (
            (predictor.i_routed, self.i_routed),
            (predictor.i_word, self.i_word),
            (predictor.o_prediction, self.o_prediction),
            (predictor.i_command, self.i_command),
            (dma.i_demand, self.i_demand),
            (dma.axi.ar, self.axi.ar),
            (dma.axi.r, self.axi.r),
            (writer.axi.aw, self.axi.aw),
            (writer.axi.w, self.axi.w),
            (writer.axi.b, self.axi.b),
        ):
            connect(m, inner, flipped(outer))
        connect(m, rows.o_fetch, dma.i_prefetch)
        connect(m, rows.o_range, writer.i_start)
        connect(m, rows.o_word, writer.i_data)
        connect(m, writer.o_done, rows.i_written)
        of_rows = dma.o_landed.payload.destination == Destination.TABLES
        m.d.comb += [
            predictor.shape.eq(self.shape),
            predictor.threshold.eq(self.threshold),
            rows.base.eq(self.base),
            rows.image_id.eq(self.image_id),
            rows.i_word.eq(dma.o_table),
            rows.i_landed.payload.eq(dma.o_landed.payload),
            rows.i_landed.valid.eq(dma.o_landed.valid & of_rows),
            dma.o_landed.ready.eq(rows.i_landed.ready | ~of_rows),
            dma.promote.eq(rows.urgent),
            dma.abort.eq(self.abort),
            self.busy.eq(predictor.busy),
            self.writing.eq(rows.writing),
        ]
        for window in (dma.window, writer.window):
            m.d.comb += [window.base.eq(self.base), window.limit.eq(self.limit)]
        m.d.sync += self.voids.eq(self.voids + rows.c_void)
        with m.If(rows.fault | rows.failed):
            m.d.sync += self.faulty.eq(1)
        return m
