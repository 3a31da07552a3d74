r"""Curated and raw text in; a classifier with its held-out card out.

python quality_classifier/train.py 'positive=[curated/*.jsonl.gz]' 'negative=[web/*]' \
        output=classifier/ kind=hashed_linear seed=0

Every default is in ``conf/classifier/train.yaml``. Text and features are held in memory, about 12
bytes for a byte of text: give a sample of a crawl, not the crawl.
"""

from winnow.commands import overrides

if __name__ == "__main__":
    overrides.run("quality_classifier.training.classes", "classifier/train")
