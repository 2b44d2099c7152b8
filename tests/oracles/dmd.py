"""Dynamic mode decomposition from its definitions: all pairs stacked, one least-squares problem, one path at a time."""

from __future__ import annotations

import numpy as np


def pairs(states: np.ndarray, horizon: int, starts: range) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and outputs (pair, feature) of ``states`` (sample, depth, token, feature)."""
    paths = [states[sample, :, token] for sample in range(states.shape[0]) for token in range(states.shape[2])]
    before = [path[start] for path in paths for start in starts]
    after = [path[start + horizon] for path in paths for start in starts]
    return np.array(before, np.float64), np.array(after, np.float64)


def least_squares(before: np.ndarray, after: np.ndarray, rank: int | None = None, ridge: float = 0.0) -> np.ndarray:
    """Return the map by an SVD of the inputs; the penalty becomes rows of its own."""
    features = before.shape[1]
    alpha = ridge * (before**2).sum() / features
    if rank is not None:
        directions = np.linalg.svd(before, full_matrices=False)[2][:rank]
        inner = least_squares_rows(before @ directions.T, after, alpha)
        return inner @ directions
    return least_squares_rows(before, after, alpha)


def least_squares_rows(before: np.ndarray, after: np.ndarray, alpha: float) -> np.ndarray:
    width = before.shape[1]
    penalised = np.vstack([before, np.sqrt(alpha) * np.eye(width)])
    target = np.vstack([after, np.zeros((width, after.shape[1]))])
    return np.linalg.lstsq(penalised, target, rcond=None)[0].T


def errors(states: np.ndarray, fit_on: np.ndarray, token_type: list[str], rank=None, ridge=0.0) -> dict:
    """Return {(name, horizon, type): relative error} of ``states``, with all maps fitted on ``fit_on``."""
    last = states.shape[1] - 1
    one = least_squares(*pairs(fit_on, 1, range(last)), rank, ridge)
    step = [least_squares(*pairs(fit_on, 1, range(at, at + 1)), rank, ridge) for at in range(last)]
    found = {}
    for horizon in range(1, last + 1):
        far = least_squares(*pairs(fit_on, horizon, range(last - horizon + 1)), rank, ridge)
        for kind in set(token_type):
            squares = dict.fromkeys(("error", "error_identity", "error_endpoint", "error_per_step"), 0.0)
            reached = 0.0
            for sample in range(states.shape[0]):
                for token in [at for at, name in enumerate(token_type) if name == kind]:
                    for start in range(last - horizon + 1):
                        path = states[sample, :, token].astype(np.float64)
                        chained = path[start]
                        for block in range(start, start + horizon):
                            chained = step[block] @ chained
                        guesses = {
                            "error": np.linalg.matrix_power(one, horizon) @ path[start],
                            "error_identity": path[start],
                            "error_endpoint": far @ path[start],
                            "error_per_step": chained,
                        }
                        for name, guess in guesses.items():
                            squares[name] += ((guess - path[start + horizon]) ** 2).sum()
                        reached += (path[start + horizon] ** 2).sum()
            for name, total in squares.items():
                found[name, horizon, kind] = np.sqrt(total / reached)
    return found


def amplitudes(operator: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and the rms coordinates of ``first`` (row, feature) in the basis of unit eigenvectors."""
    values, vectors = np.linalg.eig(operator)
    coordinates = np.linalg.solve(vectors, first.T.astype(complex))
    return values, np.sqrt((np.abs(coordinates) ** 2).mean(1))


def in_order_of(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each of ``values`` the position of the nearest of ``others``, each used once."""
    left = list(range(len(others)))
    order = []
    for value in values:
        nearest = min(left, key=lambda at: abs(others[at] - value))
        left.remove(nearest)
        order.append(nearest)
    return np.array(order)
