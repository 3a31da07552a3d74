"""The figures of a card in words, for the card and for the page of a run."""

TITLES = {
    "roc_auc": "ROC-AUC",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
}

GRADED = {
    "spearman": "Spearman, expected grade and label",
    "mae": "Mean absolute error",
    **TITLES,
}

PAIRED = {
    "accuracy": "Pairs in the right order",
    "longer": "If the longer text were the better one",
    "gain": "The difference",
}
