"""Estimators with known bias: gradients of expectations over bits, and importance-weighted evidence.

The gradients here are exact or unbiased, at the price of several evaluations of the function, and so tell how
far a relaxation is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cryoscape.models.posteriors import Bernoulli

MOST_BITS = 10
"""Of an exact expectation: 1024 evaluations."""


def bit_patterns(n: int, like: Tensor) -> Tensor:
    """All patterns of n bits, shape (2^n, n), bit 0 changing fastest, in the type of `like`."""
    number = torch.arange(2**n, device=like.device)[:, None]
    return ((number >> torch.arange(n, device=like.device)) & 1).to(like.dtype)


def exact_expectation(f: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """E_q[f(b)] over independent bits by enumeration, differentiable in the logits and in what f holds.

    Parameters
    ----------
    f : callable
        Bits (S, B, n) to values (S, B).
    logits : Tensor, shape (B, n)
        Log odds of 1.

    Returns
    -------
    Tensor, shape (B,)

    Raises
    ------
    ValueError
        If there are more than 10 bits.
    """
    n = logits.shape[-1]
    if n > MOST_BITS:
        raise ValueError(f"{n} bits are too many to enumerate")
    bits = bit_patterns(n, logits)[:, None].expand(-1, len(logits), -1)
    return (Bernoulli(logits).log_prob(bits).exp() * f(bits)).sum(0)


def leave_one_out(
    f: Callable[[Tensor], Tensor], logits: Tensor, k: int, generator: torch.Generator | None = None
) -> Tensor:
    """Unbiased estimate of E_q[f(b)] over independent bits, and of its gradient.

    The score-function estimator, each sample's baseline being the mean of the others (Kool, van Hoof and
    Welling 2019).

    Parameters
    ----------
    f : callable
        Bits (K, B, n) to values (K, B).
    logits : Tensor, shape (B, n)
        Log odds of 1.
    k : int
        Samples, at least 2.
    generator : torch.Generator, optional
        Of the bits.

    Returns
    -------
    Tensor, shape (B,)
        The mean of f, whose gradient in the logits is the estimate, and in what f holds the usual one.

    Raises
    ------
    ValueError
        If there are fewer than two samples.
    """
    q = Bernoulli(logits)
    bits = q.sample(k, generator)
    return with_score(f(bits), q.log_prob(bits)).mean(0)


def with_score(values: Tensor, log_prob: Tensor) -> Tensor:
    """The same values, with the leave-one-out score estimate in their gradient.

    Parameters
    ----------
    values : Tensor, shape (K, B)
        f of K samples.
    log_prob : Tensor, shape (K, B)
        Their log probabilities, differentiable in the parameters of what they were drawn from.

    Returns
    -------
    Tensor, shape (K, B)

    Raises
    ------
    ValueError
        If there are fewer than two samples.
    """
    k = len(values)
    if k < 2:
        raise ValueError("the mean of the other samples needs at least two")
    others = (values.sum(0) - values) / (k - 1)
    score = (values - others).detach() * log_prob
    return values + score - score.detach()


def importance_bound(log_likelihood: Tensor, log_prior: Tensor, log_posterior: Tensor) -> Tensor:
    """Importance-weighted lower bound of log p(x) from K samples of q(z | x) (Burda et al. 2016).

    log (1 / K) sum_k p(x | z_k) p(z_k) / q(z_k | x): the evidence bound for K = 1, log p(x) as K grows. Its
    gradient is the plain one, whose signal-to-noise ratio in the parameters of q falls as 1 / sqrt(K)
    (Rainforth et al. 2018). The doubly reparameterised gradient (Tucker et al. 2019), which cures that, would
    need log q at detached parameters, and the gradient of every z weighted a second time.

    Parameters
    ----------
    log_likelihood, log_prior, log_posterior : Tensor, shape (K, B)
        log p(x | z), log p(z) and log q(z | x) of K samples; of relaxed bits
        `relaxed_prior.relaxed_log_prior` and `Bernoulli.relaxed_log_prob`.

    Returns
    -------
    Tensor, shape (B,)
        Nats.
    """
    weights = log_likelihood + log_prior - log_posterior
    return torch.logsumexp(weights, 0) - math.log(len(weights))


def effective_samples(log_weights: Tensor) -> Tensor:
    """Effective number of samples of importance weights, 1 / sum of their squared shares, (K, B) -> (B,)."""
    return 1 / torch.softmax(log_weights, 0).square().sum(0)
