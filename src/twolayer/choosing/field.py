"""Who can be chosen: what runs here, takes the problem, and has the memory for it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np

from .. import variants
from ..engines.cuda_facts import NO_GPU
from ..interface import Variant
from ..machine.hardware import available_memory, gpu_count
from ..network import Network, Shape
from ..registry import LOADED
from . import Terms
from .choice import Question

NEEDS = "MiB of memory"


def able(net: Network, q: Question, asked: Terms) -> tuple[list[Variant], dict[str, str], bool]:
    """The variants that can do it, the reasons of the others, and whether these hold later.

    They do not where the memory that is free now is one.
    """
    shape = Shape(q.n, q.d, q.M, q.K)
    free = available_memory() + (q.data_bytes if asked.held else 0)
    limit = free if asked.max_memory is None else min(free, asked.max_memory)
    found, ruled_out, holds = [], {}, True
    for variant in map(variants.get, asked.variants) if asked.variants else variants.REGISTRY:
        if variant.device == "any":  # itself a choice
            continue
        if asked.device in variant.devices:
            variant = variant.on(asked.device)
        reason = _reason(variant, net, shape, q, asked)
        if reason is not None and reason.startswith(NO_GPU) and gpu_count():
            holds = False  # a GPU that fails now may run later
        if reason is None and (needed := memory(variant, q)) > limit:
            holds = holds and limit == asked.max_memory
            reason = (
                f"needs {needed / 2**20:.0f} {NEEDS}, "
                f"{limit / 2**20:.0f} MiB are {'free' if limit == free else 'allowed'}"
            )
        if reason is None:
            found.append(variant)
        else:
            ruled_out[variant.name] = reason
    return found, ruled_out, holds


def _reason(
    variant: Variant, net: Network, shape: Shape, q: Question, asked: Terms
) -> str | None:  # fmt: skip
    """Why a variant is no candidate, whatever memory there is."""
    if asked.device not in (None, variant.device):
        return f"runs on {', '.join(variant.devices)}"
    if not asked.variants and asked.device is None and variant.device == "cluster":
        return "runs on a cluster, and is chosen only where it is asked for"
    if not asked.variants and not by_default(variant):
        return "is another library, and is chosen only where it is named"
    if asked.deterministic and not variant.reproducible:
        return "does not return the same bits each time"
    return variant.unavailable() or variant.refusal(net, shape, np.dtype(q.dtype))


def memory(variant: Variant, q: Question) -> int:
    """Bytes of X, Y, θ as passed in, the plan's θ and ∇L, and the variant's buffers."""
    parameters = q.M * (q.d + q.K) * q.itemsize
    workspace = variant.workspace(Shape(q.n, q.d, q.M, q.K), q.itemsize, q.threads)
    return q.data_bytes + 3 * parameters + workspace


def by_default(variant: Variant) -> bool:
    """Whether a variant is a candidate without being named: all but those of other libraries."""
    return not variant.requires or bool(source(variant))


def outside() -> list[tuple[str, str]]:
    """The variants from outside of the package, with digests of their files and what they need."""
    return [
        (variant.name, digest + "".join(map(_version, variant.requires)))
        for variant in variants.REGISTRY if (digest := source(variant))
    ]  # fmt: skip


def _version(package: str) -> str:
    """The version of a package that is imported by that name, else whether it can be."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f" {package} {importlib.metadata.version(package)}"
    return f" {package} {importlib.util.find_spec(package) is not None}"


def source(variant: Variant) -> str:
    """The digest of the file that a variant of somebody else's comes from; of ours, nothing.

    That of the file as it was when it was loaded, where `add_file` did.
    """
    package = (__package__ or "").partition(".")[0]
    module = sys.modules.get(variant.make.__module__)
    path = getattr(module, "__file__", None)
    if variant.make.__module__.partition(".")[0] == package:
        return ""
    if loaded := getattr(module, LOADED, ""):
        return str(loaded)
    if path is None:  # of an interactive session: known to this process only
        return f"process {os.getpid()}"
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
