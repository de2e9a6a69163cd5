"""Inception score (Salimans et al. 2016) from logits, as the ADM suite computes it.

Follows openai/guided-diffusion `evaluations/evaluator.py` (`compute_inception_score`). Class probabilities are the
softmax of the logits, which there are pool_3 features times the weights of the last layer without its bias. Images are
split into runs of 5,000 in the order given, the last of which may be shorter; a split's score is the exponential of its
mean Kullback-Leibler divergence from the split's mean probabilities. Here everything is float64, there the softmax is
float32.
"""

import numpy as np
from scipy.special import log_softmax, xlogy

SPLIT_SIZE = 5000


class InceptionScore:
    """Accumulates the score one batch at a time; only sums over the current split are kept."""

    def __init__(self, *, split_size: int = SPLIT_SIZE) -> None:
        self._split_size = split_size
        self._scores: list[float] = []  # of the full splits
        self._start_split()

    def _start_split(self) -> None:
        self._in_split = 0
        self._negative_entropy = 0.0  # sum over images of sum_k p log p
        self._probabilities_K: np.ndarray | float = 0.0  # sum over images of p

    def update(self, logits_NxK: np.ndarray) -> None:
        """Adds images by their logits; K is 1,008 for the network of 2015."""
        logits_NxK = np.asarray(logits_NxK, dtype=np.float64)
        while len(logits_NxK):
            room = self._split_size - self._in_split
            log_p_NxK = log_softmax(logits_NxK[:room], axis=1)
            logits_NxK = logits_NxK[room:]
            p_NxK = np.exp(log_p_NxK)
            self._negative_entropy += float((p_NxK * log_p_NxK).sum())
            self._probabilities_K = self._probabilities_K + p_NxK.sum(axis=0)
            self._in_split += len(p_NxK)
            if self._in_split == self._split_size:
                self._scores.append(self._split_score())
                self._start_split()

    def _split_score(self) -> float:
        """exp of mean_i KL(p_i || mean p) = mean_i sum_k p log p - sum_k (mean p) log(mean p)."""
        mean_K = self._probabilities_K / self._in_split
        return float(np.exp(self._negative_entropy / self._in_split - xlogy(mean_K, mean_K).sum()))

    def compute(self) -> dict[str, float]:
        """Mean (1 to K) and standard deviation (divided by their number) over the splits of everything seen."""
        scores = [*self._scores, self._split_score()] if self._in_split else self._scores
        return {"inception_score": float(np.mean(scores)), "inception_score_std": float(np.std(scores))}
