"""`evaluate`: how good a made video is, in numbers that say how they were taken.

Every number carries its protocol, the value that real footage itself would get (the floor) and,
where frames can tell, a 95 % interval.
"""

from vidsynth.evaluation.job import evaluate
from vidsynth.evaluation.results import Evaluation, Row, Table

__all__ = ["Evaluation", "Row", "Table", "evaluate"]
