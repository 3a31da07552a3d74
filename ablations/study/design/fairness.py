"""Check that a filter is judged on sources its classifier was not trained on.

A classifier selects text like its training data; judged on that, any filter looks too good.
"""

from collections.abc import Sequence

from ablations.study.design.held_out_groups import filtered_sources
from ablations.study.design.jobs import Job, differ_by_score
from ablations.study.design.suggested_command import suggested_command
from ablations.study_files.results import Declaration
from model.data.components import parse
from model.data.corpus import Corpus
from model.data.order import FEWEST, held_out_documents


def check(jobs: Sequence[Job], declared: Declaration, corpus: Corpus) -> bool:
    """Whether the primary endpoint's sources may have trained the filter's classifier.

    Raises:
        ValueError: a source of ``unseen`` is known, an arm would train on it, or the endpoint's
            sources are known without ``allow_known_sources``.
    """
    config = jobs[0].config
    for source in config.unseen:
        if reason := _known(source, corpus):
            raise ValueError(f"unseen={source}: {reason}")
    for job in jobs:
        data = job.config.data
        if read := [s for s in config.unseen if _reads(job, s, corpus)]:
            how = "data.mixture" if data.mixture else "data.pool_shares=false"
            raise ValueError(
                f"with {how} {job.name} would train on {', '.join(read)}, which unseen keeps for"
                " evaluation: give it weight 0 in data.mixture"
            )
    kind, _, name = declared.primary.endpoint.partition("/")
    sources = set(declared.heldout.get(name, [name]))
    if kind != "heldout" or not differ_by_score(jobs) or sources <= set(config.unseen):
        return False
    if not config.allow_known_sources:
        raise ValueError(_refusal(declared, corpus))
    return True


def _known(source: str, corpus: Corpus) -> str | None:
    """Why a source can't count as unseen; None if it can."""
    learned = corpus.manifest.get("learned", {})
    if source not in corpus.sources:
        return f"{corpus.folder} has no such source; it has {', '.join(corpus.sources)}"
    if source in filtered_sources(corpus):
        return "it was filtered; name a curated source, which the pipeline did not filter"
    if share := learned.get("shares", {}).get(source):
        return f"the classifier was trained on {share:.1%} of its documents; name another source"
    if source in (learned.get("sources") or ()):
        return "the classifier was trained on a source of that name; name another source"
    return None


def _reads(job: Job, source: str, corpus: Corpus) -> bool:
    data = job.config.data
    if not data.mixture:
        return not data.pool_shares
    weights = data.mixture.items()
    return any(w > 0 and parse(name, corpus.sources)[0] == source for name, w in weights)


def _refusal(declared: Declaration, corpus: Corpus) -> str:
    candidates = [
        source
        for source in corpus.evaluated_sources
        if _known(source, corpus) is None and len(held_out_documents(corpus, source)) >= FEWEST
    ]
    endpoint = declared.primary.endpoint
    lines = [
        f"{endpoint} is not a fair endpoint: a filter looks better on sources that trained its"
        " classifier.",
    ]
    if candidates:
        lines.append("Name a curated source that it was not trained on; no arm will train on it:")
        instead = [] if endpoint == "heldout/known" else ["primary.endpoint=heldout/unseen"]
        unseen = (f"unseen=[{source}]" for source in candidates)
        lines += ["  " + suggested_command(setting, *instead) for setting in unseen]
    else:
        lines += [
            "The corpus has no curated source that it was not trained on. Score another one with"
            " the rest, neither filtered nor positive=… of the classifier, and prepare again:",
            "  winnow run … --source books='books/*.jsonl.gz'",
        ]
    lines += [
        "Or judge on known sources; the page will say so first:",
        "  " + suggested_command("allow_known_sources=true"),
    ]
    return "\n".join(lines)
