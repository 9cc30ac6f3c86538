"""`python -m mmpt_cli.compare_losses`, a command of earlier versions: see experiments/compare_losses.py."""

from experiments.compare_losses import main

if __name__ == "__main__":
    main()
