"""The report: one HTML file with the answers, their pictures, nulls and numbers, and a view of the trajectories."""
