"""How results are shown: tables, units, consoles, plots."""
