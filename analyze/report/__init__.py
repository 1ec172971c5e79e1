"""One page over everything under the outputs folder. It shows the measured records and adds only differences."""
