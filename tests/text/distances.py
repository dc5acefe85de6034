"""The edit distance as textbooks define it."""

from functools import cache


def naive_distance(one, other):
    """Levenshtein's, by the recursion."""

    @cache
    def apart(i, j):
        if i == 0 or j == 0:
            return i + j
        same = apart(i - 1, j - 1) + (one[i - 1] != other[j - 1])
        return min(same, apart(i - 1, j) + 1, apart(i, j - 1) + 1)

    return apart(len(one), len(other))
