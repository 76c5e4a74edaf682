"""What takes longer than a look into the store is announced, with a progress bar on a terminal."""

from __future__ import annotations

import random


class Bar:
    """A context; called with a name and the units of work done since the last call."""

    def __init__(self, what: str, total: int) -> None:
        state = random.getstate()  # which Rich draws from when it is imported first
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )  # fmt: skip

        random.setstate(state)
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._what = what
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TimeRemainingColumn(), console=self._console, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Bar:
        self._console.print(f"twolayer: {self._what}", soft_wrap=True)
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def __call__(self, name: str, done: int) -> None:
        """Say what is being done."""
        self._bar.update(self._task, advance=done, description=name)
