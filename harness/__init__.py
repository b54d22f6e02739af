"""What every run is strapped into: registry, configuration, run directory, checkpoints, report."""
