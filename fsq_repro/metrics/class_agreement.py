"""Does an image look like its class to a classifier that no model was trained with?

The classifier is a linear one (multinomial logistic regression) on a feature network's features of the training images.
The share of samples that it puts into the class that was asked for is read beside the same share of real images and of
reconstructions: it can tell no more than they allow.
"""

import dataclasses
import os

import numpy as np
import scipy.optimize
import scipy.special

from fsq_repro.files import atomic_path

# Of half the squared weights, of standardised features. With EfficientNet's features of 45,000 images of CIFAR-10 (a
# JPEG copy) 1e-4, 1e-3, 1e-2 and 1e-1 put 67.8, 68.8, 70.3 and 69.5% of the 5,000 validation images into their class.
PENALTY = 1e-2
ITERATIONS = 200


@dataclasses.dataclass(frozen=True, eq=False)
class ClassProbe:
    """Logits are features @ `weights_DxC` + `bias_C`; both float64."""

    weights_DxC: np.ndarray
    bias_C: np.ndarray

    @classmethod
    def fit(cls, features_NxD: np.ndarray, labels_N: np.ndarray, *, penalty: float = PENALTY) -> "ClassProbe":
        """The minimum of the mean cross-entropy and the penalty, by L-BFGS from zero: no random numbers.

        Labels are integers of 0 .. C - 1. ValueError for fewer than two classes.
        """
        (N, D), C = features_NxD.shape, int(labels_N.max()) + 1
        if len(np.unique(labels_N)) < 2:
            raise ValueError("class agreement needs training images of two classes, all have one label")
        mean_D, std_D = features_NxD.mean(axis=0, dtype=np.float64), features_NxD.std(axis=0, dtype=np.float64)
        scale_D = 1 / np.where(std_D > 0, std_D, 1)
        x_NxD = ((features_NxD - mean_D) * scale_D).astype(np.float32)
        own_N = np.arange(N), labels_N

        def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            w_DxC, b_C = flat[: D * C].reshape(D, C), flat[D * C :]
            log_p_NxC = scipy.special.log_softmax(x_NxD @ w_DxC.astype(np.float32) + b_C, axis=1)
            loss = -log_p_NxC[own_N].mean() + 0.5 * penalty * np.sum(w_DxC**2)
            error_NxC = np.exp(log_p_NxC)
            error_NxC[own_N] -= 1
            gradient_DxC = x_NxD.T @ (error_NxC / N).astype(np.float32) + penalty * w_DxC
            return loss, np.concatenate([gradient_DxC.ravel(), error_NxC.mean(axis=0)])

        start, options = np.zeros((D + 1) * C), {"maxiter": ITERATIONS, "gtol": 1e-5}
        found = scipy.optimize.minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x
        weights_DxC = found[: D * C].reshape(D, C) * scale_D[:, None]
        return cls(weights_DxC, found[D * C :] - mean_D @ weights_DxC)

    def agreement(self, features_NxD: np.ndarray, labels_N: np.ndarray) -> float:
        """Share of images, by their features, that go into the class of their label."""
        return float(np.mean(np.argmax(features_NxD @ self.weights_DxC + self.bias_C, axis=1) == labels_N))

    def save(self, path: str | os.PathLike) -> None:
        """Writes an .npz file, complete or not at all."""
        with atomic_path(path) as temporary:
            np.savez(temporary, weights=self.weights_DxC, bias=self.bias_C)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ClassProbe":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["weights"], arrays["bias"])
