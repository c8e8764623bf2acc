"""Perturbation: a trial's seed in, jitter and stalls of the guest's CPUs out, for as long as the workload runs."""
