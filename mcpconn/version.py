"""The version. The build and all code that shows the version read it here, whether or not the package is installed."""

__version__ = "0.1.0"
