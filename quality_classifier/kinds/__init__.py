"""The kinds of classifiers, their fitting and calibration."""
