"""The report of `python -m experiments.paper`: its plan, its stages, its claims and its page."""
