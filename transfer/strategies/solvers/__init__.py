"""The small problems that rules on gradients solve: as many unknowns as tasks, float64, on the CPU."""
