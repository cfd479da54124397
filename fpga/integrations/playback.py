"""A recorded run of the engine for any Verilog simulator: what to send, and what the golden model says must come back.

    python -m stmoe.fpga.integrations.playback --preset test --out build/playback

writes the engine's Verilog, the testbench ``playback.v`` and the files that it reads.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stmoe.hw.export import export
from stmoe.hw.top import Engine
from stmoe.model.images import check_image, pack, read_header
from stmoe.model.moe import moe_layer
from stmoe.model.presets import PRESETS
from stmoe.model.quantize import random_activations, random_model
from stmoe.model.registers import ID_VALUE, register_map
from stmoe.sim.messages import Activations, Result
from stmoe.sim.policies import setting
from stmoe.sim.session import register_values

TOKENS = 2
#: Cycles a layer after which the testbench gives up.
PATIENCE = 50_000
TESTBENCH = "playback.v"


def beats(messages: Iterable[bytes], bus_bytes: int) -> list[str]:
    """Messages as beats in hexadecimal, TLAST in a digit of its own on top."""
    lines = []
    for message in messages:
        for start in range(0, len(message), bus_bytes):
            beat = message[start : start + bus_bytes]
            lines.append(f"{int(start + bus_bytes >= len(message))}{beat[::-1].hex()}")
    return lines


def write(preset: str, out: Path, seed: int = 1, policy: str = "st-moe") -> list[Path]:
    """Everything a simulator needs, in ``out``; returns the paths. Two tokens through all layers of a random model."""
    config, shape = PRESETS[preset]
    bus = config.bus_bytes
    model, rng = random_model(shape, seed), np.random.default_rng(seed)
    image = pack(model, config)
    header = read_header(image)
    registers = register_map(config)
    values = register_values(
        config, check_image(header, config), header.image_id, setting(policy, config, shape.top_k, 0)
    )
    writes = [(registers[name].offset, value) for name, value in values.items()]
    writes.append((registers["CONTROL"].offset, registers["CONTROL"].encode(start=1)))
    messages, answers = [], []
    for token in range(TOKENS):
        for layer in range(shape.layers):
            x16, exponent = random_activations(rng, shape.d_model)
            result = moe_layer(model.layers[layer], shape, x16, exponent)
            ids, weights = tuple(map(int, result.ids)), tuple(map(int, result.weights))
            messages.append(Activations(layer, exponent, 0, token, x16).encode(bus))
            answers.append(Result(layer, exponent, 0, token, ids, weights, result.y).encode(bus))
    padded = np.pad(image, (0, -image.size % bus))
    lines = {
        "memory.hex": [row.tobytes()[::-1].hex() for row in padded.reshape(-1, bus)],
        "registers.hex": [f"{offset:08x}{value:08x}" for offset, value in writes],
        "messages.hex": beats(messages, bus),
        "answers.hex": beats(answers, bus),
    }
    sizes = {
        "BUS_BYTES": bus,
        "ADDR_BITS": config.addr_bits,
        "MEMORY_WORDS": len(lines["memory.hex"]),
        "REGISTERS": len(lines["registers.hex"]),
        "MESSAGE_BEATS": len(lines["messages.hex"]),
        "ANSWER_BEATS": len(lines["answers.hex"]),
        "CYCLES": PATIENCE * len(messages),
        "ID_OFFSET": registers["ID"].offset,
        "ID_VALUE": f"32'd{ID_VALUE}",
    }
    paths = export(Engine(config), "stmoe_engine", out, config, shape=shape)
    texts = {name: "".join(f"{line}\n" for line in content) for name, content in lines.items()}
    texts["playback.vh"] = "".join(f"`define {name} {value}\n" for name, value in sizes.items())
    texts[TESTBENCH] = Path(__file__).with_name(TESTBENCH).read_text()
    for name, text in texts.items():
        (out / name).write_text(text)
    return [*paths, *(out / name for name in texts)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="test")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    try:
        for path in write(options.preset, options.out):
            print(path)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
