"""A configured engine: one model, one policy, one window. Sends layers, takes results, reads counters.

Works on any back-end that has the methods of ``sim.engine.Engine``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stmoe.model.config import EngineConfig
from stmoe.model.error_codes import ErrorCode
from stmoe.model.images import ALIGNMENT, ImageHeader, ImageLayout, check_image, read_header
from stmoe.model.moe import LayerResult
from stmoe.model.policy import Policy
from stmoe.model.predictor.st_moe import LITERAL, Params
from stmoe.model.predictor.tables import TableImage, image_under
from stmoe.model.registers import address_values, register_map, shape_values
from stmoe.model.shape import ModelShape
from stmoe.sim.engine import Engine, EngineError
from stmoe.sim.errors import UserError
from stmoe.sim.messages import Activations, Announcement, Hint, Result, State

#: Cycles in which a start is decided.
START_CYCLES = 8
#: Chunks; more than any layer has.
NO_BUDGET = 0xFFFF
#: 256ths.
WORTH_MAX = 255
#: Cycles between two looks at whether learned tables are saved or loaded, and looks until it is given up.
TABLE_CYCLES = 256
TABLE_LOOKS = 10_000


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is chosen at run time, beside the model.

    Attributes
    ----------
    policy : what is kept and prefetched.
    window : cycles from the last beat of a result to the first beat of the next activations.
    serial : load all of a layer's experts, then compute, as a GPU would.
    split : one expert a tile, instead of all tiles on any.
    budget : chunks that may be prefetched for one layer.
    prefetch_window : cycles after a result in which prefetches may begin, 0 without end: for a host that takes longer than ``window``.
    worth : least probability of an expert that is prefetched, in 256ths; 0: any.
    demote : give up first what was prefetched and then not chosen.
    predictor : parameters of CCT and HT.
    """

    policy: Policy
    window: int = 0
    serial: bool = False
    split: bool = False
    budget: int = NO_BUDGET
    prefetch_window: int = 0
    worth: int = 0
    demote: bool = False
    predictor: Params = field(default=LITERAL)

    def __post_init__(self):
        if self.window < 0:
            raise UserError(f"window = {self.window}: must not be negative")
        if not 0 <= self.budget <= NO_BUDGET:
            raise UserError(f"budget = {self.budget}: must be 0 to {NO_BUDGET} chunks")
        if not 0 <= self.worth <= WORTH_MAX:
            raise UserError(f"worth = {self.worth}: must be 0 to {WORTH_MAX} 256ths")


def hidden_address(layout: ImageLayout) -> int:
    """Where the hidden image lies in DRAM: behind the expert image."""
    return -(-(layout.base + layout.total_bytes) // ALIGNMENT) * ALIGNMENT


def hidden_values(hidden: bytes, layout: ImageLayout) -> dict[str, int]:
    """The registers that tell of a hidden image at ``hidden_address``."""
    address = hidden_address(layout)
    return {
        **address_values("HIDDEN_BASE", address),
        "HIDDEN_BYTES": len(hidden) // layout.shape.layers,
        **address_values("READ_WINDOW_LIMIT", address + len(hidden) - 1),
    }


def table_values(tables: TableImage, end: int, address: int) -> dict[str, int]:
    """The registers that give learned tables a place in DRAM at ``address``; they alone may be written.

    ``end`` : first address above the images, which tables must not overwrite.
    """
    last = address + tables.total_bytes - 1
    if address < end:
        raise UserError(f"learned tables at {address:#x} would overwrite the model's image")
    return {
        **address_values("TABLE_BASE", address),
        **address_values("READ_WINDOW_LIMIT", last),
        **address_values("WRITE_WINDOW_BASE", address),
        **address_values("WRITE_WINDOW_LIMIT", last),
    }


def register_values(config: EngineConfig, layout: ImageLayout, image_id: int, setting: Setting) -> dict[str, int]:
    """The registers of a run, by name."""
    registers, predictor = register_map(config), setting.predictor
    return {
        **shape_values(layout.shape),
        "IMAGE_ID": image_id,
        "ROUTER_BYTES": layout.router_bytes,
        **address_values("ROUTER_BASE", layout.router_address(0)),
        **address_values("EXPERT_BASE", layout.chunk_address(0, 0)),
        **address_values("READ_WINDOW_BASE", layout.base),
        **address_values("READ_WINDOW_LIMIT", layout.base + layout.total_bytes - 1),
        "POLICY": int(setting.policy),
        "SCHEDULE": registers["SCHEDULE"].encode(split=setting.split, serial=setting.serial, demote=setting.demote),
        "PREDICTOR_SCORE": registers["PREDICTOR_SCORE"].encode(
            threshold=predictor.threshold,
            history_weight=predictor.history_weight,
            vote_confidence=predictor.vote_confidence,
        ),
        "PREDICTOR_LEARN": registers["PREDICTOR_LEARN"].encode(
            step_up=predictor.step_up,
            step_down=predictor.step_down,
            initial=predictor.initial,
            counter_max=predictor.counter_max,
        ),
        "PREFETCH_BUDGET": setting.budget,
        "PREFETCH_WORTH": setting.worth,
        "PREFETCH_WINDOW": setting.prefetch_window,
        "IRQ_ENABLE": registers["IRQ_ENABLE"].encode(error=1),
    }


class Session:
    """An engine that runs one model under one setting.

    Parameters
    ----------
    engine : the back-end; its memory is overwritten with ``image``.
    config : the build.
    image : packed model (docs/interfaces.md §1).
    setting : policy, window and the rest.
    hidden : the hidden image (docs/predictors.md), for policies that read it; it is put behind ``image``.
    tables : address of the learned tables above both, for a session that saves or loads them.

    Attributes
    ----------
    table_image : layout of the tables that are saved and loaded: those of the policy.
    """

    def __init__(
        self,
        engine: Engine,
        config: EngineConfig,
        image: NDArray[np.uint8],
        setting: Setting,
        *,
        hidden: bytes | None = None,
        tables: int | None = None,
    ):
        self.engine, self.config, self.setting = engine, config, setting
        self.header: ImageHeader = read_header(image)
        self.layout = check_image(self.header, config)
        self.shape: ModelShape = self.layout.shape
        engine.load(image, self.layout.base)
        engine.reset()
        engine.write_all(register_values(config, self.layout, self.header.image_id, setting))
        end = self.layout.base + self.layout.total_bytes
        if hidden is not None:
            engine.load(hidden, hidden_address(self.layout))
            engine.write_all(hidden_values(hidden, self.layout))
            end = hidden_address(self.layout) + len(hidden)
        self._tables = tables
        self.table_image = image_under(setting.policy, config)
        if tables is not None:
            engine.write_all(table_values(self.table_image, end, tables))
        engine.command(start=1)
        # A start is checked for some cycles before it is accepted or refused.
        engine.run_window(START_CYCLES)
        status = engine.status()
        if not status["running"]:
            detail = engine.read("ERROR_DETAIL")
            raise UserError(f"the engine refuses to start: {ErrorCode(status['error']).name}, detail {detail}")
        self._answered = False
        self._passed = 0

    def announce(self, sequence: int, token: int, word: int) -> None:
        """Tell the engine a token's word (its id + 1) before its first layer.

        It is known half a window after the last result: the other half of the host's work, from embedding to router, follows.
        """
        self._pass_half()
        self.engine.send(Announcement(sequence, token, word).encode(self.config.bus_bytes))

    def state(self, layer: int, sequence: int, token: int, x16: NDArray[np.int64], exponent: int) -> None:
        """Send the residual stream before a layer's attention, which the host has as soon as the last result is in.

        That of layer 0 is the token's embedding: known with its word.
        """
        if layer == 0:
            self._pass_half()
        self.engine.send(State(layer, exponent, sequence, token, x16).encode(self.config.bus_bytes))

    def _pass_half(self) -> None:
        """Let half of the window before layer 0 pass, once."""
        if self._answered and not self._passed:
            self._passed = self.setting.window // 2
            self.engine.run_window(self._passed)

    def layer(
        self,
        layer: int,
        sequence: int,
        token: int,
        x16: NDArray[np.int64],
        exponent: int,
        hint: tuple[int, NDArray[np.int64]] | None = None,
        word: int = 0,
    ) -> LayerResult:
        """One layer of one token; the window passes first. ``hint``: experts of a layer to come, for policy ``oracle``."""
        bus = self.config.bus_bytes
        if self._answered:
            self.engine.run_window(self.setting.window - self._passed)
        self._passed = 0
        if hint is not None:
            target, ids = hint
            expected = tuple(int(e) for e in ids)
            self.engine.send(Hint(target, sequence, token, expected, (1,) * len(expected)).encode(bus))
        self.engine.send(Activations(layer, exponent, sequence, token, x16, word=word).encode(bus))
        answer = self.engine.result()
        self._answered = True
        result = Result.decode(answer.message, bus, self.shape.d_model)
        if (result.layer, result.sequence, result.token) != (layer, sequence, token):
            raise RuntimeError(f"the engine answered for {result.layer, result.sequence, result.token}")
        return LayerResult(np.array(result.ids), np.array(result.weights), result.y.astype(np.int64), 0)

    def counters(self) -> Mapping[str, int]:
        """A snapshot of the hardware counters."""
        return self.engine.counters()

    def save_tables(self) -> bytes:
        """Have the engine write what its predictor has learned; the bytes in memory (``table_image`` unpacks them)."""
        address, size = self._table_range()
        self._table_command(save_tables=1)
        return self.engine.memory[address : address + size].tobytes()

    def load_tables(self, data: bytes) -> None:
        """Put ``data`` into memory and have the predictor replace what it has learned. ``ValueError``: not for this engine."""
        address, _ = self._table_range()
        self.table_image.unpack(data, self.header.image_id)
        self.engine.load(data, address)
        self._table_command(load_tables=1)

    def _table_range(self) -> tuple[int, int]:
        if self._tables is None:
            raise UserError("no address was given for learned tables")
        return self._tables, self.table_image.total_bytes

    def _table_command(self, **command: int) -> None:
        self.engine.command(**command)
        for _ in range(TABLE_LOOKS):
            if not self.engine.status()["tables"]:
                self.engine.check_status()
                return
            self.engine.run_window(TABLE_CYCLES)
        raise EngineError(f"the engine does not finish with {next(iter(command))}")
