"""Timing on a machine that others use too: alternating blocks, pauses, medians of ratios.

The speed of such a machine changes from one second to the next, so an absolute time says little, and a ratio of two
times says something only if they were taken next to each other. Two contenders therefore run in turn, a block each, and
their ratio is taken within every round; the median over the rounds is what is reported. A pause goes before every block
because the worker threads of an OpenMP library spin for a while after a call and would take a core from whoever comes
next.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import numpy as np
from limits import Probe
from peers import Builder, Call, random_arrays, result_shapes, tolerance
from shapes import Case


class ResultsDiffer(Exception):
    """A contender computes something else than localconv does."""


@dataclass(frozen=True)
class Pace:
    """How long to measure for."""

    block: float  # seconds that a block of calls takes, about
    rounds: int
    pause: float = 0.01  # seconds before a block
    hopeless: float = 5.0  # a formulation so many times slower than its library's best is dropped after one look
    close: float = 1.25  # a second one within this factor of its library's best stays in: the rounds tell which it is
    behind: float = 2.0  # a rival so many times slower than the nearest one cannot become the best peer,
    enough: int = 3  # and so many rounds do for it


@dataclass
class Contender:
    """One formulation, ready to be called, and what has been measured of it."""

    library: str
    label: str
    call: Call
    settle: Callable[[], object] = lambda: None  # before every block
    estimate: float = 0.0
    seconds: list[float] = field(default_factory=list)  # one value per block
    ratios: list[float] = field(default_factory=list)  # its time over localconv's, one value per round

    @property
    def time(self) -> float:
        return median(self.seconds)

    @property
    def fastest(self) -> float:
        return min(self.seconds)

    @property
    def ratio(self) -> float:
        return median(self.ratios)


@dataclass
class Row:
    """One line of the table: a case, localconv's contender, the best of each other library, and the limit."""

    case: Case
    ours: Contender
    peers: dict[str, Contender]
    limit: str = ""  # "memory" or "compute"; empty when it was not measured
    limit_rate: float = 0.0  # bytes or operations a second
    reached: float = 0.0  # the limit's time over localconv's
    shares: dict[str, float] = field(default_factory=dict)  # the same of either limit, "memory" and "compute"
    workspace: int | None = None  # bytes that a thread of localconv takes beside the arrays, where that is asked for
    looks: dict[str, float] = field(default_factory=dict)  # seconds of every formulation of the peers, at one look

    @property
    def best(self) -> Contender | None:
        """The fastest peer.

        By its fastest block, which other people's work disturbs least: the lowest of several noisy ratios would be too
        low as often as not.
        """
        return min(self.peers.values(), key=lambda peer: peer.fastest, default=None)


def timed(call: Call, repeats: int) -> float:
    """Return the mean time of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def block(contender: Contender, pace: Pace) -> float:
    """Pause, wake the contender's threads with one call, and time a block of its calls."""
    repeats = max(1, round(pace.block / contender.estimate))
    time.sleep(pace.pause)
    contender.settle()
    if repeats > 1:
        contender.call()
    contender.seconds.append(timed(contender.call, repeats))
    return contender.seconds[-1]


def _prepare(
    library: str,
    formulations: dict[str, Builder],
    case: Case,
    arrays: tuple,
    check: Callable,
    pace: Pace,
    looks: dict[str, float],
) -> list[Contender]:
    """Build, check and probe the formulations of one library; return those worth measuring, the fastest first.

    One that the library itself refuses is left out, with a warning. `looks` gets what a call of each took.
    """
    found: list[Contender] = []
    for label, build in formulations.items():
        call, fetch = build(case, *arrays)
        try:
            result = call()  # it also compiles, where there is something to compile
        except RuntimeError as error:
            warnings.warn(f"{case.name}, {case.work}: {library} ({label}) cannot: {error}", stacklevel=2)
            continue
        check(library, label, fetch(result))
        contender = Contender(library, label, call)
        contender.estimate = looks[f"{library}: {label}"] = max(timed(call, 1), 1e-7)
        if contender.estimate <= pace.hopeless * min((c.estimate for c in found), default=contender.estimate):
            found.append(contender)
    for contender in found:  # a second look: the first call after the check may still have met cold caches
        repeats = 3 if contender.estimate < pace.block else 1
        contender.estimate = max(min(contender.estimate, *(timed(contender.call, 1) for _ in range(repeats))), 1e-7)
    found.sort(key=lambda c: c.estimate)
    return [c for c in found[:2] if c.estimate <= pace.close * found[0].estimate]


def _checker(case: Case, arrays: tuple[np.ndarray, ...]) -> Callable[[str, str, tuple[np.ndarray, ...]], None]:
    """Return a function that compares results with the first ones it was given, which are localconv's."""
    allowed = tolerance(case, arrays)
    reference: list[np.ndarray] = []

    def check(library: str, label: str, results: tuple[np.ndarray, ...]) -> None:
        shaped = [np.ascontiguousarray(r).reshape(shape) for r, shape in zip(results, result_shapes(case), strict=True)]
        if not reference:
            reference.extend(result.copy() for result in shaped)
        for result, right, limit in zip(shaped, reference, allowed, strict=True):
            if not np.all(np.abs(result - right) <= limit):  # written so that a NaN fails
                raise ResultsDiffer(
                    f"{case.name}, {case.work}: {library} ({label}) and localconv disagree beyond rounding"
                )

    return check


def _rates(case: Case, probe: Probe) -> tuple[float, float]:
    """Bytes and operations a second that the machine has for the case just now.

    Arrays that lie in a cache between calls are read from there: the bandwidth is that of reading as many bytes, again
    and again.
    """
    probe.bandwidth()
    peak = probe.peak() * 4 / case.itemsize  # a vector holds half as many float64
    return probe.bandwidth_of(case.resident), peak


def _set_limit(row: Row, rates: list[tuple[float, float]], times: list[float]) -> None:
    """The limit that binds by the medians of all rounds, and the median of how much of it was reached in each."""
    bandwidth, peak = (median(column) for column in zip(*rates, strict=True))
    bound_by_memory = row.case.nbytes / bandwidth > row.case.flops / peak
    row.limit, row.limit_rate = ("memory", bandwidth) if bound_by_memory else ("compute", peak)
    for which, (name, work) in enumerate((("memory", row.case.nbytes), ("compute", row.case.flops))):
        row.shares[name] = median(work / rate[which] / own for rate, own in zip(rates, times, strict=True))
    row.reached = row.shares[row.limit]


def measure(case: Case, ours, libraries: list, probe: Probe | None, pace: Pace, progress: Callable[[str], None]) -> Row:
    """Measure one case.

    Parameters
    ----------
    case : Case
    ours
        The library that everything is compared with; its `settle` comes before each of its blocks.
    libraries : list
        The peers. One that has no formulation for the case is left out.
    probe : Probe or None
        Measures the machine's limits between the rounds.
    pace : Pace
    progress : callable
        Called with a few words whenever something starts.

    Raises
    ------
    ResultsDiffer
        If two results are further apart than rounding allows.
    """
    arrays = random_arrays(case)
    check = _checker(case, arrays)
    progress("checking localconv")
    (own,) = _prepare(ours.name, ours.formulations(case), case, arrays, check, pace, {})
    own.settle = ours.settle
    row = Row(case, own, {})
    rivals: list[Contender] = []
    for library in libraries:
        progress(f"checking {library.name}")
        rivals += _prepare(library.name, library.formulations(case), case, arrays, check, pace, row.looks)
    rates, times = [], []
    for number in range(pace.rounds):
        progress(f"round {number + 1} of {pace.rounds}")
        times.append(median(_round(own, rivals, number, pace)))
        if probe:
            rates.append(_rates(case, probe))
    if rates:
        _set_limit(row, rates, times)
    for rival in rivals:
        if rival.library not in row.peers or rival.fastest < row.peers[rival.library].fastest:
            row.peers[rival.library] = rival
    return row


def _round(own: Contender, rivals: list[Contender], number: int, pace: Pace) -> list[float]:
    """Run every rival next to localconv, in an order that changes from round to round; return localconv's times."""
    if not rivals:
        return [block(own, pace)]
    nearest = min(rival.estimate for rival in rivals)
    times = []
    for rival in rivals[number % len(rivals) :] + rivals[: number % len(rivals)]:
        if rival.estimate > pace.behind * nearest and number >= pace.enough:
            continue
        pair = (own, rival) if number % 2 else (rival, own)
        spent = {contender.library: block(contender, pace) for contender in pair}
        rival.ratios.append(spent[rival.library] / spent[own.library])
        times.append(spent[own.library])
    return times
