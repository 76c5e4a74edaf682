"""`twolayer list`: every variant, and whether it runs here."""

from __future__ import annotations

from rich.table import Table

from ... import variants
from ...showing import output
from ..options import JsonFile, VariantFiles, add_files


def list_variants(variant_file: VariantFiles = None, json: JsonFile = None) -> None:
    """List every variant and whether it runs here, once for each device it is made for."""
    table = Table("variant", "device", "what it is", "runs here", box=None, pad_edge=False)
    rows = []
    add_files(variant_file)
    for variant in (one.on(device) for one in variants.REGISTRY for device in one.devices):
        reason = variant.unavailable()
        rows.append(
            {
                "name": variant.name,
                "device": variant.device,
                "summary": variant.summary,
                "available": reason is None,
                "reason": reason,
            }
        )
        table.add_row(
            variant.name,
            variant.device,
            variant.summary,
            "yes" if reason is None else f"no: {reason}",
            style="dim" if reason else None,
        )
    if json is not None:
        output.write_json(json, {"variants": rows})
    output.stdout().print(table)
