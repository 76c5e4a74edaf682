"""Measurements of two machines and twenty commits whose figures are known."""

import json
import random
import sqlite3
from contextlib import closing
from dataclasses import asdict

from twolayer.machine.calm import Calm
from twolayer.machine.store import Measurement, Store, machine_hash

COMMITS = [f"{number:02x}" * 20 for number in range(16, 36)]  # 1010…, 1111…, …, 2323…
DAY = 24 * 3600
BEGIN = 1.79e9
NAMES = ("an abacus", "a loom")


def machine(name="an abacus", sources=0, **changed):
    about = {"cpu": name, "cpus": 2, "libraries": ["numpy 2.3", "numba 0.62"]}
    return about | {"sources": str(sources)} | changed


def epoch(seconds, commit=0, variant="numpy", noise=0.002, draw=None, **about):
    """A measurement of a commit by number, whose blocks scatter about those seconds."""
    draw = draw or random.Random(commit)
    blocks = [seconds * (1 + draw.gauss(0, noise)) for _ in range(5)]
    metrics = {
        "blocks": blocks, "flops": 1e11, "bandwidth": 1e10, "first_call": 1.0, "peak_memory": 0,
        "calm": asdict(Calm(seconds=60.0)),
    }  # fmt: skip
    known = {
        "kind": "epoch", "variant": variant, "device": "cpu", "activation": "tanh",
        "loss": "squared", "dtype": "float32", "n": 100, "d": 8, "M": 16, "K": 2, "threads": 2,
        "time": BEGIN + commit * DAY, "commit": COMMITS[commit], "tree": "clean",
        "data": "synthetic", "low": sorted(blocks)[1], "seconds": sorted(blocks)[2],
        "high": sorted(blocks)[3],
    }  # fmt: skip
    return Measurement(**known | about, metrics=metrics)


def fill(path, levels, count=1, shapes=((100, 8, 16, 2),)):
    """A store with so many measurements of each problem, machine and commit."""
    Store(path).add(epoch(1.0, kind="other"), machine())
    draw = random.Random(0)
    rows = []
    with closing(sqlite3.connect(path)) as db:
        for commit, level in enumerate(levels):
            for number, name in enumerate(NAMES):
                signature = machine(name, sources=commit)
                key = machine_hash(signature)
                db.execute(
                    "INSERT OR IGNORE INTO machine VALUES (?, ?)", (key, json.dumps(signature))
                )
                for variant, scale in (("numpy", level), ("numba-fused", 0.5)):
                    for n, d, M, K in shapes:
                        for run in range(count):
                            one = epoch(
                                1e-3 * scale * (1 + number) * n / 100, commit, variant, draw=draw,
                                n=n, d=d, M=M, K=K,
                            )  # fmt: skip
                            about = vars(one) | {
                                "machine": key, "time": one.time + run,
                                "metrics": json.dumps(one.metrics, sort_keys=True),
                            }  # fmt: skip
                            rows.append(about)
        names = [*rows[0]]
        db.executemany(
            f"INSERT INTO measurement ({', '.join(f'[{name}]' for name in names)}) "
            f"VALUES ({', '.join(f':{name}' for name in names)})",
            rows,
        )
        db.commit()
    return len(rows)
