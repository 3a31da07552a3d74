"""Train a classifier from classes, grades or pairs of documents."""
