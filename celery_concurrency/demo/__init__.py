"""The demo: a server, two workers under limits, and a live view of them."""
