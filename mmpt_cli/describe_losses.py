"""`python -m mmpt_cli.describe_losses`, a command of earlier versions: see scripts/describe_losses.py."""

from scripts.docs.losses import main

if __name__ == "__main__":
    main()
