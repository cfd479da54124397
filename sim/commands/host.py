"""``stmoe host``: a board at the end of a cable."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from stmoe.fpga.host.device import Device, preset_of
from stmoe.fpga.host.link import DEFAULT_BAUD, DEFAULT_TIMEOUT, Link
from stmoe.fpga.host.upload import differing, upload
from stmoe.model.images import check_image, read_header
from stmoe.model.register_types import ADDRESS_BITS, Access
from stmoe.sim.commands.presets import find_preset
from stmoe.sim.errors import UserError

NAME = "host"
app = typer.Typer(
    help="Talk to a board over a serial cable, or to a simulator over a pty or TCP (docs/link.md).",
    no_args_is_help=True,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Address = Annotated[str, typer.Option(help="Where it begins in memory: 4096, 0x1000.")]
Image = Annotated[Path, typer.Argument(metavar="FILE", help="Expert image, as `stmoe pack` writes it.")]
Raw = Annotated[bool, typer.Option("--raw", help="Any bytes: do not check that they are an image for the board.")]


@dataclass(frozen=True)
class Connection:
    """The options in front of the subcommand."""

    port: str
    baud: int
    timeout: float
    preset: str | None

    @contextmanager
    def device(self) -> Iterator[Device]:
        """The board, checked."""
        config = None if self.preset is None else find_preset(self.preset)[0]
        with Link(self.port, self.baud, timeout=self.timeout) as link:
            yield Device(link, config)


@app.callback()
def connect(
    context: typer.Context,
    port: Annotated[str, typer.Option(help="/dev/ttyUSB0, COM3, a pty, or socket://HOST:PORT.", show_default=False)],
    baud: Annotated[int, typer.Option(help="Rate of a real port.")] = DEFAULT_BAUD,
    timeout: Annotated[
        float, typer.Option(help="Seconds an answer may take beside its bytes; more for a simulator.")
    ] = DEFAULT_TIMEOUT,
    preset: Annotated[
        str | None, typer.Option(help="The build the board must have; left out: whatever it has.", show_default=False)
    ] = None,
) -> None:
    """Talk to a board over a serial cable, or to a simulator over a pty or TCP (docs/link.md)."""
    context.obj = Connection(port, baud, timeout, preset)


@app.command()
def info(context: typer.Context, as_json: AsJson = False) -> None:
    """Say what is at the other end: protocol, build, limits, state of engine and link."""
    with context.obj.device() as device:
        identity = device.link.identity
        capabilities: dict[str, int] = {}
        for register in device.registers:
            if register.name.startswith("CAPS"):
                capabilities |= register.decode(device.read(register.name))
        content: dict[str, Any] = {
            "port": device.link.port,
            "preset": preset_of(identity.build),
            **asdict(identity),
            "engine": capabilities,
            "status": device.status(),
            "link": device.link_counters(),
            "retries": device.link.retries,
        }
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    print(
        f"{content['port']}: build {identity.build:#010x} (preset {content['preset']}), {identity.clock_hz / 1e6:g} MHz"
    )
    print(f"  protocol {identity.protocol}, {identity.payload_max:,} bytes a frame, bus of {identity.bus_bytes} bytes")
    for title in ("engine", "status", "link"):
        print(f"  {title}: {', '.join(f'{name} {value}' for name, value in content[title].items())}")


@app.command()
def read(
    context: typer.Context,
    place: Annotated[str, typer.Argument(help="A register by name or offset, or with --bytes an address of memory.")],
    size: Annotated[int | None, typer.Option("--bytes", help="Read so many bytes of memory.", min=1)] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write memory here instead of printing it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a register, or memory."""
    if out is not None and size is None:
        raise UserError("--out needs --bytes: it is for memory")
    with context.obj.device() as device:
        if size is None:
            name, offset = _register(device, place)
            value = device.read_address(offset)
            fields = device.registers[name].decode(value) if name in {r.name for r in device.registers} else {}
            content: dict[str, Any] = {"register": name, "value": value, "fields": fields}
            text = f"{name} = {value:#010x}" + "".join(
                f"\n  {field} {v}" for field, v in fields.items() if len(fields) > 1
            )
        else:
            address = _number(place, "address")
            data = device.read_memory(address, size)
            content = {"address": address, "bytes": data.hex()}
            text = "\n".join(f"{address + i:#010x}  {data[i : i + 16].hex(' ')}" for i in range(0, size, 16))
            if out is not None:
                _write_file(out, data)
                text = f"{out}: {size:,} bytes"
    typer.echo(json.dumps(content, indent=2) if as_json else text)


@app.command()
def write(
    context: typer.Context,
    register: Annotated[str, typer.Argument(help="A register by name or offset.")],
    value: Annotated[str, typer.Argument(help="32 bits: 5, 0x1F.")],
    as_json: AsJson = False,
) -> None:
    """Write a register. Memory is written by `upload --raw`."""
    number = _number(value, "value")
    if number >= 1 << 32:
        raise UserError(f"value = {value}: does not fit 32 bits")
    with context.obj.device() as device:
        name, offset = _register(device, register)
        known = {r.name: r for r in device.registers}
        if name in known and known[name].access is Access.RO:
            raise UserError(f"register {name} is read-only")
        device.write_address(offset, number)
    typer.echo(json.dumps({"register": name, "value": number}) if as_json else f"{name} = {number:#010x}")


@app.command(name="upload")
def upload_command(
    context: typer.Context,
    image: Image,
    address: Address = "0",
    resume: Annotated[bool, typer.Option(help="Keep the blocks that are in memory already.")] = True,
    raw: Raw = False,
    as_json: AsJson = False,
) -> None:
    """Write an image into memory, and check it there by CRC. Run again after an interruption, it goes on where it was."""
    place = _number(address, "address")
    data = _read_file(image)
    with context.obj.device() as device:
        if not raw:
            _check(image, data, device)
        with _progress("upload", len(data), as_json) as done:
            report = upload(device, data, place, resume=resume, done=done)
    content = {"file": str(image), "address": place, **asdict(report), "retries": device.link.retries}
    text = (
        f"{image}: {report.bytes:,} bytes at {place:#x}, {report.written} blocks written, {report.kept} there already"
    )
    typer.echo(json.dumps(content, indent=2) if as_json else text)


@app.command()
def verify(
    context: typer.Context, image: Image, address: Address = "0", raw: Raw = False, as_json: AsJson = False
) -> None:
    """Compare an image with memory, by CRCs the board computes. Exit code 1 if they differ."""
    place = _number(address, "address")
    data = _read_file(image)
    with context.obj.device() as device:
        if not raw:
            _check(image, data, device)
        device.check_fits(place, len(data))
        with _progress("verify", len(data), as_json) as done:
            found = differing(device, place, data, done)
    content = {"file": str(image), "address": place, "bytes": len(data), "same": not found, "differing_blocks": found}
    first = f"differs in {len(found)} blocks, first at {place + found[0]:#x}" if found else "is what memory has"
    typer.echo(json.dumps(content, indent=2) if as_json else f"{image}: {len(data):,} bytes at {place:#x}: {first}")
    if found:
        raise typer.Exit(1)


@app.command()
def counters(context: typer.Context, as_json: AsJson = False) -> None:
    """A snapshot of the engine's counters, and the link's."""
    with context.obj.device() as device:
        content = {"engine": device.counters(), "link": device.link_counters()}
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    for title, numbers in content.items():
        print(f"{title}:")
        for name, number in numbers.items():
            print(f"  {name:<26} {number:>16,}")


@contextmanager
def _progress(what: str, total: int, as_json: bool) -> Iterator[Callable[[int], None]]:
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    hidden = as_json or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def _check(path: Path, data: bytes, device: Device) -> None:
    """``UserError`` unless ``data`` is a whole image that runs on the board's build."""
    try:
        layout = check_image(read_header(data), device.config)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    if len(data) != layout.total_bytes:
        raise UserError(f"{path}: has {len(data):,} bytes, but its header says {layout.total_bytes:,}")


def _register(device: Device, place: str) -> tuple[str, int]:
    """Name and offset of a register given by either."""
    offsets = {register.name: register.offset for register in device.registers}
    if place.upper() in offsets:
        return place.upper(), offsets[place.upper()]
    if not place[:1].isdigit():
        raise UserError(f"no register {place!r}: see `stmoe registers --format markdown`")
    offset = _number(place, "register")
    if offset >= 1 << ADDRESS_BITS:
        raise UserError(f"register = {place}: offsets end at {(1 << ADDRESS_BITS) - 4:#x}")
    return next((name for name, at in offsets.items() if at == offset), f"{offset:#x}"), offset


def _number(text: str, name: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UserError(f"{name} = {text!r}: not a number from 0 to 2^64 - 1, as 4096 or 0x1000")
    return number


def _read_file(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not data:
        raise UserError(f"{path}: the file is empty")
    return data


def _write_file(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
