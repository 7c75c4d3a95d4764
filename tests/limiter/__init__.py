"""The limiter alone, on a real server."""
