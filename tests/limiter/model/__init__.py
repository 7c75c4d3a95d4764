"""The promises as a plain Python model, held against the scripts."""
