"""The command line: ``stmoe``. Each subcommand lives in its own module of ``stmoe.sim.commands``."""

import sys

import typer

from stmoe.sim.commands import presets, registers, verilog, version
from stmoe.sim.errors import UserError

app = typer.Typer(
    name="stmoe",
    help="Expert prefetching for Mixture-of-Experts decoding, in open hardware.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (presets, registers, verilog, version):
    app.command(name=command.NAME)(command.run)


def main() -> None:
    """Run the command line. What the user got wrong is one line on stderr and exit code 2."""
    try:
        app()
    except UserError as error:
        print(f"stmoe: {error}", file=sys.stderr)
        sys.exit(2)
