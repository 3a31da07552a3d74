"""The groups of held-out text, and what readers may conclude from each."""

from ablations.contrasts import endpoints
from ablations.study_files.results import Study
from ablations.study_files.table import Row

CONCLUSIONS = {
    "unseen": "Neither the classifier nor any arm has seen these sources. A gain here says that the"
    " filter helps on good text in general, as far as these sources stand for it.",
    "known": "The classifier may have learned from these sources, and a filter prefers text like"
    " them. A gain here is partly built in and does not show that the filter helps elsewhere.",
    "web": "Raw text as the filter finds it. A loss here is the price of filtering: the model knows"
    " less of the web at large.",
    "junk": "The fifth of the raw text with the lowest scores. A loss here is what a filter is for;"
    " a gain says that the filter has missed its aim.",
    "all": "Every source counts the same, so this mixes what the groups show one by one.",
}


def conclusions(study: Study) -> list[Row]:
    """A row for each held-out group that has a known meaning."""
    return [
        {
            "group": group,
            "label": endpoints.label(f"heldout/{group}"),
            "sources": list(sources),
            "conclusion": CONCLUSIONS[group],
        }
        for group, sources in study.declared.heldout.items()
        if group in CONCLUSIONS
    ]
