"""Evidence for people: calibration, robustness, examinations, pages; never imported by the rooms below."""
