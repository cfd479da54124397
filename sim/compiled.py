"""From a configuration to a compiled engine: Verilog export, Verilator, library, each done again only when it changed."""

import hashlib
from pathlib import Path

import stmoe
from stmoe.model.config import EngineConfig
from stmoe.sim.build import TOP, Build, BuildOptions, build_engine

CORE = f"{TOP}.engine.core"
#: Counters that go on while nothing else moves.
FREE_RUNNING = (f"{TOP}.engine.counters.cycles_total", f"{TOP}.engine.counters.window_total")
#: What the timeline shows: the sequencer's phase, busy tiles, data beats by class.
PHASE = f"{CORE}.sequencer.phase"
TILES = f"{CORE}.datapath.busy"
DEMAND = f"{CORE}.dma.c_demand_beats"
PREFETCH = f"{CORE}.dma.c_prefetch_beats"
TIMELINE = (PHASE, TILES, DEMAND, PREFETCH)


def source_digest() -> str:
    """Changes whenever the sources of the hardware or of its configuration do."""
    package = Path(stmoe.__file__).resolve().parent
    digest = hashlib.sha256()
    for folder in ("hw", "model"):
        for path in sorted((package / folder).resolve().rglob("*")):
            if path.suffix in (".py", ".v") and "train" not in path.parts:
                digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def verilog_sources(config: EngineConfig, cache: Path) -> list[Path]:
    """The engine's Verilog for ``config``, written to ``cache`` unless it is there."""
    key = hashlib.sha256(f"{source_digest()} {config.to_json()}".encode()).hexdigest()[:16]
    folder = cache / f"verilog-{config.name}-{key}"
    sources = [folder / "stmoe_sram.v", folder / f"{TOP}.v"]
    if not all(path.exists() for path in sources):
        # Amaranth takes a second to import: only when something has to be elaborated.
        from stmoe.hw.export import export
        from stmoe.hw.top import Engine

        export(Engine(config), TOP, folder, config)
    return sources


def compile_engine(config: EngineConfig, cache: Path, *, vcd: bool = False) -> Build:
    """The compiled engine of ``config``; raises ``UserError`` when a tool is missing or fails."""
    rehearsal = () if vcd else ("-m", "stmoe.sim.rehearsal", config.to_json())
    options = BuildOptions(free_running=FREE_RUNNING, watched=TIMELINE, vcd=vcd, rehearsal=rehearsal)
    return build_engine(verilog_sources(config, cache), options, cache)
