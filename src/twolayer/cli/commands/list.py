"""`twolayer list`: every variant, and whether it runs here."""

from __future__ import annotations

from ... import variants
from ...showing import output
from ...showing.table import Table
from ..options import JsonFile, VariantFiles, add_files


def list_variants(variant_file: VariantFiles = None, json: JsonFile = None) -> None:
    """List every variant and whether it runs here, once for each device it is made for."""
    output.check_writable(json=json)
    table = Table("variant", "device", "what it is", "runs here")
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
    output.deliver(
        lambda: output.stdout().print(table),
        (json, lambda file: output.write_json(file, {"variants": rows})),
    )
