"""What safety costs, measured on the machine this runs on: `python -m benchmarks`."""
