"""The one score that stands for a run where there is room for one only: that of its method's own paper."""

from collections.abc import Collection

from farout import papers


def own_score(method: str, id_data: str, scored: Collection[str]) -> str | None:
    """The first row of the papers' tables that is of this method and was scored here; else any score, or None.

    Weights of others (`imported`) count as those of a classifier trained with cross-entropy.
    """
    wanted = "ce" if method == "imported" else method
    kinds = [kind.on(id_data) for name in papers.names() for kind in papers.load(name).kinds.values()]
    own = (kind.score for kind in kinds if kind.method == wanted and kind.score in scored)
    return next(own, next(iter(scored), None))
