"""CPU and wall time of a body, many times, and the Markdown table of the medians."""

import collections
import contextlib
import dataclasses
import statistics
import time


@dataclasses.dataclass(frozen=True)
class Spent:
    """Seconds, user and system time together for `cpu`."""

    cpu: float
    wall: float


class Samples:
    """What each named body took, run by run."""

    def __init__(self):
        self.runs = collections.defaultdict(list)

    @contextlib.contextmanager
    def of(self, name):
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.runs[name].append(Spent(cpu, wall))

    def median(self, name):
        return Spent(
            statistics.median(run.cpu for run in self.runs[name]),
            statistics.median(run.wall for run in self.runs[name]),
        )


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the report."""

    what: str
    driver: str
    cpu: str
    wall: str
    ratio: str = ""
    goal: str = ""
    met: bool | None = None


def ratio_line(what, driver, plain, tracked, at_most):
    """Tracked against untracked: seconds, and how many times as many."""
    ratio = tracked.cpu / plain.cpu
    return Line(
        what,
        driver,
        f"{plain.cpu:.3f} → {tracked.cpu:.3f} s",
        f"{plain.wall:.3f} → {tracked.wall:.3f} s",
        f"{ratio:.2f}x CPU, {tracked.wall / plain.wall:.2f}x wall",
        f"at most {at_most}x",
        ratio <= at_most,
    )


def rate_line(what, driver, count, spent, at_least=None, noun="changes"):
    """How many a second."""
    rate = count / spent.cpu
    return Line(
        what,
        driver,
        f"{rate:,.0f} {noun}/s",
        f"{count / spent.wall:,.0f} {noun}/s",
        goal=f"at least {at_least:,}" if at_least else "",
        met=rate >= at_least if at_least else None,
    )


def markdown(lines):
    titles = ("What", "Driver", "CPU", "Wall", "Ratio", "Goal", "Met")
    met = {True: "yes", False: "**no**", None: ""}
    rows = [
        (line.what, line.driver, line.cpu, line.wall, line.ratio, line.goal, met[line.met]) for line in lines
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (titles, ("---",) * len(titles), *rows))
