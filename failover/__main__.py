"""``python -m failover``: the command line."""

from failover.cli import main

if __name__ == "__main__":
    main(prog_name="failover")
