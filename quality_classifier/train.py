r"""Train a classifier on curated and raw text, and evaluate it on held-out text.

python quality_classifier/train.py 'positive=[curated/*.jsonl.gz]' 'negative=[web/*]' \
        output=classifier/ kind=hashed_linear seed=0

Defaults are in ``conf/classifier/train.yaml``. Text and features are held in memory, about 12 bytes
per byte of text: give a sample of a crawl.
"""

from winnow.commands import overrides

if __name__ == "__main__":
    overrides.run("quality_classifier.training.classes", "classifier/train")
