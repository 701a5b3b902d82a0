"""Speed and memory, measured on this machine: `make bench`. Ratios of things measured in one run are what counts."""
