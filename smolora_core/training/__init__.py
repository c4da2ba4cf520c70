"""The training engine: one Trainer for every task, and the objective that normalises any loss."""
