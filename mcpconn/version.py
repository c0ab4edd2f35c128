"""The version: the build reads it here, and so does everything that shows it, installed or not."""

__version__ = "0.1.0"
