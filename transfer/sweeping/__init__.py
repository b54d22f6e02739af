"""Parts of :mod:`transfer.sweep`: from axes of options to runs, and from runs to a comparison."""
