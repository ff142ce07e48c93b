"""The version, in a file of its own: reading package metadata would cost a third of ``--help``."""

__version__ = "0.1.0"
