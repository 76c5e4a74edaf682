"""The report: everything that is known of the variants on this machine, in one page."""
