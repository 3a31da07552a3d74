"""Trains a classifier: from classes, from grades or from pairs of documents."""
