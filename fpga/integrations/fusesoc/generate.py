"""FuseSoC's generator: reads the parameters that FuseSoC hands over, writes the sources and a core file that lists them.

Parameters: ``preset``, as in ``stmoe presets``.
"""

import json
import sys
from pathlib import Path
from typing import Any

from stmoe.fpga.integrations import playback
from stmoe.model.presets import PRESETS

#: The testbench's data: Verilog's $readmemh looks for them where the simulation runs.
DATA = ".hex"


def core(vlnv: str, paths: list[Path]) -> dict[str, Any]:
    """The description of a core whose files are ``paths``."""
    sources = [p.name for p in paths if p.suffix == ".v" and p.name != playback.TESTBENCH]
    bench: list[Any] = [{p.name: {"is_include_file": True}} for p in paths if p.suffix == ".vh"]
    bench += [{p.name: {"file_type": "user", "copyto": p.name}} for p in paths if p.suffix == DATA]
    bench.append(playback.TESTBENCH)
    return {
        "name": vlnv,
        "filesets": {
            "rtl": {"files": sources, "file_type": "verilogSource"},
            "bench": {"files": bench, "file_type": "systemVerilogSource"},
        },
        "targets": {"default": {"filesets": ["rtl", "target_sim ? (bench)"]}},
    }


def main(request: Path) -> None:
    """Write everything into the folder that FuseSoC runs this in."""
    # FuseSoC writes YAML, of which this part is as plain as JSON but for its quotes: its own reader is there when it runs.
    import yaml

    asked = yaml.safe_load(request.read_text())
    preset = asked["parameters"].get("preset", "test")
    if preset not in PRESETS:
        sys.exit(f"{request}: preset: {preset!r} is not one of {', '.join(PRESETS)}")
    paths = playback.write(preset, Path.cwd())
    name = asked["vlnv"]
    file = Path.cwd() / f"{name.split(':')[2]}.core"
    file.write_text("CAPI=2:\n" + json.dumps(core(name, paths), indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
