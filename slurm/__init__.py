"""Training on clusters: both mains as SLURM jobs, through submitit; see :mod:`slurm.launch`."""
