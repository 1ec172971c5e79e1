"""One page over everything under the outputs folder. It reads records, curves and maps, and measures nothing."""
