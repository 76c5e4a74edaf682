"""The history of one problem, or which problems there are, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from ...history import Level, Machine, Problem, Series, Step
from ...history.levels import day
from ...history.series import ERRORS, FEWEST, LEAST, MOST
from ...machine.revision import Logged
from ..table import Table
from ..units import duration, fixed

PROBLEMS, STEPS = 30, 20  # lines at most; files have them all
RULE = (
    f"A step: the medians of {FEWEST} to {MOST} measurements before a commit and from it on differ "
    f"by {LEAST:.0%} and by {ERRORS} standard errors at least."
)
Task = tuple[Problem, Machine]


def tasks(found: Iterable[Series]) -> dict[Task, list[Series]]:
    """The series of each problem and machine, whatever the variant."""
    made: dict[Task, list[Series]] = {}
    for one in found:
        made.setdefault((one.problem.task, one.machine), []).append(one)
    return made


def show(console: Console, found: Sequence[Series], log: dict[str, Logged]) -> None:
    """A row a commit where there is one problem, else a row a problem; below, the steps."""
    if not found:
        console.print("nothing of that was measured: `twolayer bench` does")
        return
    groups = tasks(found)
    if len(groups) == 1:
        ((task, members),) = groups.items()
        console.print(_commits(task, members, log))
    else:
        console.print(_problems(groups))
        if len(groups) > PROBLEMS:
            console.print(f"and {len(groups) - PROBLEMS} more problems", style="dim")
        console.print("One problem over its commits: --shape n,d,M,K and --machine.", style="dim")
    _steps(console, found, log)


def _problems(groups: dict[Task, list[Series]]) -> Table:
    table = Table(title="What was measured, the last first")
    for heading in ("problem", "machine"):
        table.add_column(heading)
    for heading in ("variants", "commits", "last", "fastest", "an epoch", "steps"):
        table.add_column(heading, justify="right", no_wrap=True)
    for (problem, machine), members in [*groups.items()][:PROBLEMS]:
        states = {level.state for one in members for level in one.levels}
        best = min(members, key=lambda one: one.levels[-1].median)
        table.add_row(
            str(problem).strip(), f"{machine.key} {machine.name}", str(len(members)),
            str(len(states)), day(max(one.last for one in members)), best.problem.variant,
            duration(best.levels[-1].median), str(sum(len(one.steps) for one in members)),
        )  # fmt: skip
    return table


def order(members: Iterable[Series]) -> list[Level]:
    """A level of each state, in the order in which the series have them."""
    after: dict[tuple[str, str], Level] = {}
    for one in sorted(members, key=lambda one: -len(one.levels)):
        for level in one.levels:
            after.setdefault((level.state, level.sources), level)
    return [*after.values()]


def _commits(task: Task, members: Sequence[Series], log: dict[str, Logged]) -> Table:
    problem, machine = task
    members = sorted(members, key=lambda one: one.levels[-1].median)
    table = Table(title=f"{problem}\n{machine.name} ({machine.key})")
    table.add_column("commit", no_wrap=True)
    table.add_column("last", no_wrap=True)
    for one in members:
        table.add_column(one.problem.variant, justify="right", no_wrap=True)
    table.add_column("what it says")
    of = [{(x.state, x.sources): x for x in one.levels} for one in members]
    steps = {id(step.level): step for one in members for step in one.steps}
    rows = sorted(order(members), key=lambda level: _when(level, log))
    for level in rows:
        cells = [found.get((level.state, level.sources)) for found in of]
        last = max(x.times[-1] for x in cells if x is not None)
        subject = log[level.commit].subject if level.commit in log else ""
        table.add_row(level.state, day(last), *(_cell(x, steps) for x in cells), subject)
    return table


def _when(level: Level, log: dict[str, Logged]) -> tuple[float, int, bool, float]:
    known = log.get(level.commit, Logged(level.times[0], 0, ""))
    return known.time, known.place, level.state.endswith("+"), level.times[0]


def _cell(level: Level | None, steps: dict[int, Step]) -> str:
    """Seconds, the half of the quartiles' distance, and an arrow where it is a step."""
    if level is None:
        return "–"
    low, high = level.quartiles
    spread = f" ±{(high - low) / 2 / level.median:.1%}" if high > low else ""
    step = steps.get(id(level))
    mark = "" if step is None else f" {'▲' if step.ratio > 1 else '▼'}{fixed(step.ratio, 2)}"
    return f"{duration(level.median)}{spread}{mark}"


def _steps(console: Console, found: Sequence[Series], log: dict[str, Logged]) -> None:
    steps = [(one, step) for one in found for step in one.steps]
    steps.sort(key=lambda both: -both[1].level.times[0])
    for one, step in steps[:STEPS]:
        console.print(describe(one, step, log), soft_wrap=True)
    if len(steps) > STEPS:
        console.print(f"and {len(steps) - STEPS} more steps", style="dim")
    console.print(RULE if steps else f"No steps. {RULE}", style="dim", soft_wrap=True)


def describe(one: Series, step: Step, log: dict[str, Logged]) -> str:
    """A step in a line."""
    subject = f" {log[step.level.commit].subject!r}" if step.level.commit in log else ""
    also = f"; at the same time {', '.join(step.also)}" if step.also else ""
    return (
        f"step at {step.level.state}{subject}: {one.problem.variant} × {fixed(step.ratio, 3)}, "
        f"{duration(step.before)} → {duration(step.after)}, "
        f"{str(one.problem).strip()} on {one.machine.key}{also}"
    )
