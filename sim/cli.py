"""The command line: ``stmoe``. Each subcommand lives in its own module of ``stmoe.sim.commands``."""

import os
import sys

# One token's vectors are too short for the threads of a BLAS, which would spend the other cores' time waiting for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from stmoe.sim.commands import (
    bench_predictors,
    demo,
    fpga,
    host,
    pack,
    predict,
    presets,
    registers,
    report,
    run,
    trace,
    verilog,
    version,
)
from stmoe.sim.errors import UserError

app = typer.Typer(
    name="stmoe",
    help="Expert prefetching for Mixture-of-Experts decoding, in open hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (demo, run, predict, bench_predictors, pack, presets, verilog, registers, report, version):
    app.command(name=command.NAME)(command.run)
app.add_typer(trace.app, name=trace.NAME)
app.add_typer(fpga.app, name=fpga.NAME)
app.add_typer(host.app, name=host.NAME)


def main() -> None:
    """Run the command line. What the user got wrong is one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"stmoe: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
