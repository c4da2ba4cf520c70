"""Optimisations that leave the results unchanged; without this package everything still trains."""
