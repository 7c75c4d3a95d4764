"""The maintainers' programs behind the Makefile; no part of what is installed."""
