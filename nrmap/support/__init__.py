"""Errors, files, records, progress, tracking."""
