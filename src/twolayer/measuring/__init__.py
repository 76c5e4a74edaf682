"""Where an epoch is timed: races of variants, start-up, ceilings of the machine."""
