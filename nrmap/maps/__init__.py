"""KMAP, HMAP and related maps: computing, measuring, drawing."""
