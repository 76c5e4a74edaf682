"""Plans made of other variants' plans: `auto`, a Dask cluster, data on disk."""

from . import auto, dask

VARIANTS = (dask.VARIANT, auto.VARIANT)
