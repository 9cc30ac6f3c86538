"""From a project file to commands: on this machine, under torchrun, on SLURM, as a pipeline."""
