"""The training loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cryoscape.data.images import BandImages, ImageBatch
from cryoscape.errors import InputError
from cryoscape.models.decoders.voxels import VoxelDecoder
from cryoscape.models.encoders import Encoder
from cryoscape.models.image_model import ImageModel
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.priors.base import LatentPrior
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training import checkpoint
from cryoscape.training.bits import relaxation_at
from cryoscape.training.config import Config, FieldConfig, VoxelsConfig
from cryoscape.training.features import FeatureTable
from cryoscape.training.held_out import WATCHED, held_out_bound
from cryoscape.training.interruption import Interrupted, StopRequest
from cryoscape.training.linear_start import start_linearly
from cryoscape.training.metrics import MetricsLog
from cryoscape.training.objective import Evaluated, evaluate_terms
from cryoscape.training.population import PopulationLearner
from cryoscape.training.pose_table import Correction, PoseCorrections
from cryoscape.training.restraining import Restraints
from cryoscape.training.sampling import BatchOrder, step_generator
from cryoscape.training.schedule import kl_weight, learning_rate
from cryoscape.training.spectral_prior import EVERY, SpectralPrior


@dataclass(frozen=True)
class Parts:
    """All that a loop works on.

    Attributes
    ----------
    model, prior : the modules
    restraints : Restraints or None
    images : BandImages
    order : BatchOrder
        Of the training particles.
    held_out : Tensor, int64
        Rows on which the evidence bound is watched.
    n_training : int
        Particles that are trained on.
    latents : Tensor or None, shape (N, 2 d)
        Given posteriors, in place of what an encoder reads.
    poses : PoseCorrections or None
        Corrections of the poses of all particles.
    structure : AtomicModel or None
        The reference, where there is one.
    """

    model: ImageModel
    prior: LatentPrior
    restraints: Restraints | None
    images: BandImages
    order: BatchOrder
    held_out: Tensor
    n_training: int
    latents: Tensor | None = None
    poses: PoseCorrections | None = None
    structure: AtomicModel | None = None


class TrainingStep(nn.Module):
    """One evaluation of the objective, as the module that Fabric wraps."""

    def __init__(self, parts: Parts, config: Config) -> None:
        super().__init__()
        self.model = parts.model
        self._restraints, self._n, self._config = parts.restraints, parts.n_training, config

    def forward(
        self,
        batch: ImageBatch,
        features: Tensor,
        beta: float,
        generator: torch.Generator,
        prior: LatentPrior,
        correction: Correction | None = None,
    ) -> Evaluated:
        """Evaluate the objective of a batch under a prior."""
        return evaluate_terms(
            self.model,
            prior,
            self._restraints,
            batch,
            features,
            objective=self._config.objective,
            beta=beta,
            balance=self._config.restraints.balance,
            through_latent=self._config.restraints.through_latent,
            n_particles=self._n,
            generator=generator,
            correction=correction,
        )


def parameter_groups(module: TrainingStep, config: Config) -> list[dict[str, Any]]:
    """Parameters with their share of the learning rate; voxels have a prior of their own and no decay."""
    d = config.decoder
    fast = module.model.decoder.fast_parameters()
    known = {id(p) for p in fast}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in module.parameters() if id(p) not in known], "factor": 1.0}
    ]
    if isinstance(d, VoxelsConfig | FieldConfig):
        decay = 0.0 if isinstance(d, VoxelsConfig) else config.training.weight_decay
        groups.append({"params": fast, "factor": d.lr / config.training.lr, "weight_decay": decay})
    return groups


class Trainer:
    """Runs the optimisation and keeps the run folder up to date.

    Parameters
    ----------
    folder : Path
        Run folder.
    config : Config
    parts : Parts
    total : int
        Steps in all.
    fabric : Fabric
        Device and precision.
    progress : ProgressReporter, optional
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        parts: Parts,
        total: int,
        fabric: Fabric,
        progress: ProgressReporter | None = None,
    ) -> None:
        self.folder, self.config, self.parts, self.total = folder, config, parts, total
        self.fabric, self.device = fabric, fabric.device
        self.progress = reporter_or_silent(progress)
        t = config.training
        module = TrainingStep(parts, config)
        # The fused optimiser passes over the weights once instead of a dozen times.
        optimizer = torch.optim.AdamW(
            parameter_groups(module, config),
            lr=t.lr,
            weight_decay=t.weight_decay,
            fused=True,
        )
        self.module, self.optimizer = fabric.setup(module, optimizer)
        self.population = PopulationLearner(parts.prior, config, total, parts.structure)
        self.spectrum: SpectralPrior | None = None
        if isinstance(config.decoder, VoxelsConfig) and isinstance(parts.model.decoder, VoxelDecoder):
            strength = config.decoder.smoothness
            self.spectrum = SpectralPrior(parts.model.decoder, parts.n_training, t.batch, strength)
        self.ema: torch.optim.swa_utils.AveragedModel | None = None
        if t.ema > 0:
            average = torch.optim.swa_utils.get_ema_multi_avg_fn(t.ema)
            self.ema = torch.optim.swa_utils.AveragedModel(
                parts.model, multi_avg_fn=average, use_buffers=False
            )
        self.features = FeatureTable(
            parts.model, parts.images, self.device, config.data.cache_memory, parts.latents
        )
        self.log = MetricsLog(folder / "metrics.csv", tensorboard=folder / "logs" if t.tensorboard else None)
        self.step = 0
        self.best = -math.inf
        self._refresh_at = {round(f * total) for f in config.encoder.refresh}
        self._stop = StopRequest()

    # -- start ---------------------------------------------------------------------------------

    def calibrate(self) -> None:
        """First estimate of gain and noise, against the reference; first look at the features."""
        model = self.parts.model
        settings = self.config.likelihood
        if isinstance(model.likelihood, GaussianLikelihood) and settings.kind != "correlation":
            wanted = min(settings.calibration, self.parts.n_training)
            scene = model.decoder.scene(model.decoder.reference[None])
            sums, seen, step = None, 0, 0
            with self.progress.task("calibrating noise", wanted, "images") as task:
                while seen < wanted:
                    batch = self.parts.images.batch(self.parts.order.at(step)).to(self.device)
                    projections = scene.project(
                        batch.rotations, model.likelihood.box, model.likelihood.pixel_size
                    )
                    part = model.likelihood.accumulate(batch.images, projections, batch.ctf, batch.group)
                    sums = part if sums is None else sums + part
                    seen, step = seen + len(batch.rows), step + 1
                    task.advance(len(batch.rows))
            assert sums is not None
            model.likelihood.fit(sums)
            # As much past as the running estimate will hold: 1 / (1 - memory) batches.
            model.likelihood.sums.mul_(self.config.training.batch / (1 - model.likelihood.memory) / seen)
        model.feature_map.take_anchor(model.decoder.reference, model.likelihood)
        self.features.build(self.progress)
        model.encoder.standardise(self.features.sample(2048))
        if isinstance(model.encoder, Encoder) and model.encoder.linear is not None:
            rows, seed = self.parts.order.rows, self.config.training.seed
            ratio = start_linearly(model, self.features, self.parts.images, rows, seed, self.progress)
            self.progress.note(
                f"signal in the features, largest first: {', '.join(f'{r:.2f}' for r in ratio)}"
            )

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint."""
        groups, header = checkpoint.load(path)
        for stump in path.parent.glob(".*.safetensors"):
            # What a killed process was writing.
            stump.unlink(missing_ok=True)
        checkpoint.load_module(self.parts.model, groups["model"], path)
        self.population.restore(groups, path)
        checkpoint.restore_optimizer(self.optimizer, groups.get("optimizer", {}))
        if self.ema is not None:
            checkpoint.load_module(self.ema.module, groups["ema"], path)
            self.ema.n_averaged.fill_(header["ema_count"])
        if self.parts.restraints is not None:
            self.parts.restraints.neighbours.load_state(groups.get("neighbours", {}))
        if self.parts.poses is not None:
            checkpoint.load_module(self.parts.poses, groups["poses"], path)
        self.step, self.best = header["step"], header["best"]
        self.log.restore(header["log"], self.step)
        self.features.build(self.progress)

    def save(self, name: str = "last") -> None:
        """Write a checkpoint from which training goes on bit for bit."""
        groups = {
            "model": self.parts.model.state_dict(),
            "optimizer": checkpoint.optimizer_tensors(self.optimizer),
            **self.population.tensors(),
        }
        header: dict[str, Any] = {"step": self.step, "best": self.best, "log": self.log.state()}
        if self.ema is not None:
            groups["ema"] = self.ema.module.state_dict()
            header["ema_count"] = int(self.ema.n_averaged)
        if self.parts.restraints is not None:
            groups["neighbours"] = self.parts.restraints.neighbours.state()
        if self.parts.poses is not None:
            groups["poses"] = self.parts.poses.state_dict()
        checkpoint.save(self.folder / "checkpoints" / f"{name}.safetensors", groups, header)

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> None:
        """Train to the last step.

        Raises
        ------
        Interrupted
            After Ctrl-C or SIGTERM, with a checkpoint saved.
        InputError
            If the GPU runs out of memory, the disk is full, or the loss is no longer finite.
        """
        t = self.config.training
        self.parts.model.train()
        saved = time.monotonic()
        with self._stop.listening(), self.progress.task("training", self.total, "steps") as task:
            task.advance(self.step)
            while self.step < self.total:
                try:
                    self._one_step()
                except torch.cuda.OutOfMemoryError as error:
                    raise InputError(
                        "the GPU ran out of memory", remedy=f"Give --batch {max(1, t.batch // 2)} or smaller."
                    ) from error
                self.step += 1
                task.advance(1)
                last = self.step == self.total
                if self.step % t.log_every == 0 or last:
                    row = self.log.flush(self.step)
                    task.status(_status(row))
                if last or self.step % max(1, self.total // 20) == 0:
                    self._watch()
                if last or time.monotonic() - saved > 60 * t.checkpoint_minutes:
                    self.save()
                    saved = time.monotonic()
                if self._stop.signal and not last:
                    self.save()
                    raise Interrupted(self._stop.signal)

    def _one_step(self) -> None:
        c, model = self.config, self.parts.model
        if self.step in self._refresh_at:
            self._refresh()
        rows = self.parts.order.at(self.step)
        batch = self.parts.images.batch(rows).to(self.device)
        beta = kl_weight(self.step, self.total, c.objective)
        rate = learning_rate(self.step, self.total, c.training)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        generator = step_generator(c.training.seed, self.step)
        # What is left out at random must be the same in a resumed run.
        torch.manual_seed(generator.initial_seed())
        poses = self.parts.poses
        correction = None
        if poses is not None and self.step >= c.poses.start * self.total:
            correction = poses.at(rows.to(self.device))
        population = self.population
        if population.due(self.step):
            self._start_population(beta)
        population.place_exemplars(self.step, model, self._features_of)
        prior = population.at(self.step)
        if prior.support == "binary":
            model.encoder.relaxation = relaxation_at(c, self.step, self.total)
        found = self.module(batch, self.features.rows(batch), beta, generator, prior, correction)
        terms = found.terms
        if not bool(torch.isfinite(terms.loss)):
            raise InputError(
                f"training diverged: the loss of step {self.step + 1} is not finite",
                remedy=f"Give --training.lr {c.training.lr / 3:.1g} or --training.clip 100.",
            )
        self.optimizer.zero_grad()
        self.fabric.backward(terms.loss)
        if c.training.clip > 0:
            self.fabric.clip_gradients(self.module, self.optimizer, max_norm=c.training.clip)
        if self.spectrum is not None:
            self.spectrum.add_gradient(self.step)
        self.optimizer.step()
        population.learn(self.step, found.z.flatten(0, 1))
        if poses is not None and correction is not None:
            # The loss is a mean over the batch; a pose belongs to one image alone.
            poses.update(correction, c.poses.lr * rate / c.training.lr)
        # The spectrum of differences that are still being found would say that there are none.
        adapting = self.step >= c.objective.hold * self.total and self.step % EVERY == 0
        if self.spectrum is not None and adapting:
            self.spectrum.update(self.optimizer)
        if self.step % 64 == 63 or self.step == self.total - 1:
            model.decoder.constrain()
        if self.ema is not None:
            self.ema.update_parameters(model)
        # The first tenth of a run would teach the gain that nothing has been learnt yet.
        if self.step >= 0.1 * self.total:
            model.likelihood.observe(
                batch.images, found.projections, batch.ctf, batch.group, model.decoder.coverage
            )
        self.log.add(terms, beta=beta, lr=rate, images=len(rows), whole=prior.normalized)

    @torch.no_grad()
    def _refresh(self) -> None:
        """Recompute the features at the mean of the objects decoded now."""
        model = self.parts.model
        rows = torch.cat([self.parts.order.at(self.step + i) for i in range(32)])
        batches = (self.parts.images.batch(part).to(self.device) for part in rows.split(256))
        z = torch.cat([model.posterior(self.features.rows(batch)).mean for batch in batches])
        model.feature_map.take_anchor(model.decoder.mean_object(z), model.likelihood)
        self.features.build(self.progress)
        self.population.forget_features()

    def _features_of(self, rows: Tensor) -> Tensor:
        """Encoder input of some rows."""
        return self.features.rows(self.parts.images.batch(rows).to(self.device))

    def _start_population(self, beta: float) -> None:
        """Let the learned prior take over from N(0, I)."""
        with self.progress.task("prior", 1) as task:
            self.population.take_over(self.parts.model, self.parts.order.rows, self._features_of, beta)
            task.advance(1)

    @torch.no_grad()
    def _watch(self) -> None:
        """Evidence bound of held-out particles; keep the best once the KL has its full weight."""
        rows = self.parts.held_out[:WATCHED]
        if not len(rows):
            return
        model, seed = self.parts.model.eval(), self.config.training.seed
        batches = (self.parts.images.batch(part).to(self.device) for part in rows.split(256))
        pairs = ((batch, self.features.rows(batch)) for batch in batches)
        found = held_out_bound(model, self.population.at(self.step), pairs, seed)
        model.train()
        self.log.held_out(self.step, elbo=found.elbo, kl=found.kl, log_z_err=found.log_z_err)
        for fault in self.population.new_faults(self.step):
            self.progress.note(f"prior: {fault}")
        ramped = self.step >= self.config.objective.ramp * self.total
        if ramped and found.elbo > self.best:
            self.best = found.elbo
            self.save("best")


def _status(row: dict[str, float]) -> str:
    if "elbo" in row:
        return f"elbo {row['elbo']:.1f} nats, KL {row['kl']:.1f}"
    return f"log-likelihood {row['log_likelihood']:.1f} nats"
