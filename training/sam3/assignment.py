"""The cheapest one-to-one assignment, by scipy where it is installed.

A bare training machine need not have scipy: nothing else of the training core asks for it. There the same
problem is solved by successive shortest paths (Jonker and Volgenant, Computing 38, 1987; as in Crouse, IEEE
Trans Aerosp Electron Syst 52, 2016).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Assignment = tuple[NDArray[np.int64], NDArray[np.int64]]


def cheapest(costs: NDArray[np.floating]) -> Assignment:
    """Row and column numbers of the pairs of least total cost; as many as the shorter side of (rows, columns)."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        return shortest_paths(costs)
    rows, columns = linear_sum_assignment(costs)
    return np.asarray(rows, np.int64), np.asarray(columns, np.int64)


def shortest_paths(costs: NDArray[np.floating]) -> Assignment:
    """`cheapest`, in numpy: a shortest augmenting path for each row, by Dijkstra on reduced costs."""
    if costs.shape[0] > costs.shape[1]:
        columns, rows = shortest_paths(costs.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    cost = np.asarray(costs, np.float64)
    count, width = cost.shape
    of_row, of_column = np.zeros(count), np.zeros(width)  # the dual variables
    row_at = np.full(width, -1)
    column_at = np.full(count, -1)
    for start in range(count):
        distance, before = np.full(width, np.inf), np.full(width, -1)
        done = np.zeros(width, dtype=bool)
        row, least, seen = start, 0.0, [start]
        while True:
            reached = least + cost[row] - of_row[row] - of_column
            nearer = ~done & (reached < distance)
            distance[nearer], before[nearer] = reached[nearer], row
            column = int(np.argmin(np.where(done, np.inf, distance)))
            least = float(distance[column])
            done[column] = True
            if row_at[column] < 0:
                break
            row = int(row_at[column])
            seen.append(row)
        of_row[start] += least
        for other in seen[1:]:
            of_row[other] += least - distance[column_at[other]]
        of_column[done] -= least - distance[done]
        while True:  # turn the path around
            row = int(before[column])
            row_at[column] = row
            column_at[row], column = column, int(column_at[row])
            if row == start:
                break
    return np.arange(count), column_at
