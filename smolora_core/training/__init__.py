"""Training: one trainer for every task, and an objective that normalises any loss."""
