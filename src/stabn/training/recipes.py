"""Recipes of training and fine-tuning: network, optimizer, loader, corrections, and their defaults."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stabn.data.sampling import Sampling, SamplingMode
from stabn.data.transforms import Augmentation, Preprocessing
from stabn.data.video.backends import Decoder
from stabn.data.video.reader import TIMEOUT
from stabn.errors import UserError
from stabn.nn.backbone import ClipFormat
from stabn.nn.backbones import backbone_class
from stabn.nn.losses import EditLossForm
from stabn.nn.stabn import Mechanism


@dataclass(frozen=True)
class NetworkRecipe:
    """Base network and initial weights.

    Attributes:
        backbone: the base network, one of `stabn backbones`: small, tiny, fine (maps twice as fine), small-deep or
            fine-deep for a 2-core CPU; resnet18, 34, 50, 101 or 152 as in the official code; timm/NAME for any 2D
            network of timm; and the video networks of torchvision and transformers.
        attention: with the attention branch (ST-ABN); False trains the base network alone, the baseline.
        mechanism: gated (ours, which docs/results.md found best) multiplies all features by the temporal attention, and
            gated-both by the spatial attention, too; paper is Eqs. 1 to 3.
        dropout: before the classifiers of both branches, 0 to less than 1.
        weights: a finished run, of which all but the classifiers is taken; or weights of the base network: a file, a
            name that `stabn backbones` lists, or a hub repository; null for random ones.
        inflation: how the kernels of a 2D ResNet become 3D: centre keeps the response to a static clip equal to the 2D
            network's; average is the official way.
        freeze: extractor keeps the weights and statistics of all that comes before the attention branch, and its
            features are computed once (`loader.views`); a number keeps those of the first stages; none trains all.
        thaw: epochs after which what is frozen trains, too; null for never.
    """

    backbone: str = "small"
    attention: bool = True
    mechanism: Mechanism = "gated"
    dropout: float = 0.5
    weights: str | None = None
    inflation: Literal["centre", "average"] = "centre"
    freeze: Literal["none", "extractor"] | int = "none"
    thaw: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.freeze, int) and self.freeze < 1:
            raise UserError(f"network.freeze: got {self.freeze}, expected none, extractor or a number of stages from 1")
        if self.thaw is not None and (self.thaw < 1 or self.freeze == "none"):
            raise UserError(
                f"network.thaw: got {self.thaw} with freeze {self.freeze}, expected epochs from 1 and a freeze"
            )

    @property
    def keeps_features(self) -> bool:
        """Whether the extractor stays as it is, so that its features can be kept."""
        return self.freeze == "extractor" and self.thaw is None

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values; what earlier versions did not have is there only where it acts."""
        value = asdict(self)
        return {name: v for name, v in value.items() if name not in ("freeze", "thaw") or v not in ("none", None)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "NetworkRecipe":
        """The recipe that `as_json` wrote; the mechanism of versions that did not write it is the paper's."""
        return cls(**{"mechanism": "paper", **value})


@dataclass(frozen=True)
class SamplingRecipe:
    """Which frames of a video a clip has.

    Attributes:
        mode: "dense" takes neighbouring frames (the official code), "uniform" spreads them over the whole video; so do,
            as their official codes, "segments" (TSN, TRN, TSM, GST), "snippets" (ABM) and "shared-offset" (bLVNet-TAM).
            By default "uniform", or "segments" for base networks that read snippets of consecutive frames.
        frames: T, the number of frames of a clip; by default what the base network's weights were trained on.
        stride: distance between neighbouring frames of a dense clip; 1 in the other modes, which do not use it.
        snippet: consecutive frames at each place in the modes "segments" and "snippets"; by default as many as the base
            network reads at once.
    """

    mode: SamplingMode | None = None
    frames: int | None = None
    stride: int = 1
    snippet: int | None = None

    def resolve(self, wanted: ClipFormat) -> Sampling:
        """The sampling with what a base network wants where the recipe says nothing.

        Raises:
            ValueError: a value is out of range, or the network reads snippets of another length.
        """
        mode = self.mode or ("segments" if wanted.snippet > 1 else "uniform")
        snippet = self.snippet or (wanted.snippet if mode in ("segments", "snippets") else 1)
        if mode != "dense" and wanted.snippet not in (1, snippet):
            raise ValueError(
                f"sampling: got mode {mode} with snippets of {snippet}, but the base network reads snippets of "
                f"{wanted.snippet} consecutive frames; give --preprocessing.sampling.mode segments"
            )
        return Sampling(mode, wanted.frames if self.frames is None else self.frames, self.stride, snippet)


@dataclass(frozen=True)
class PreprocessingRecipe:
    """How videos become clips; what is left out is as the base network's weights expect it.

    Attributes:
        sampling: which frames.
        resize: the shorter side of a frame after resizing, in pixels; by default 9/8 of `crop`.
        crop: side of the square that the network reads, in pixels.
        region: (left, top, right, bottom), the part of every frame to use, as fractions of its width and height, such
            as a mouth or one place of a production line; cut out before resizing. Null for the whole frame.
        mean: of R, G and B in 0..1, subtracted.
        std: of R, G and B in 0..1, divided by.
    """

    sampling: SamplingRecipe = SamplingRecipe()
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    region: tuple[float, float, float, float] | None = None

    def resolve(self, network: NetworkRecipe) -> Preprocessing:
        """The preprocessing with the values of a base network where the recipe has none.

        Raises:
            UserError: there is no such base network, its weights cannot be read, or a value is out of range.
        """
        wanted = backbone_class(network.backbone).format_of(network.backbone, network.weights)
        crop = self.crop
        if crop is None:
            crop = wanted.size if self.resize is None else min(wanted.size, self.resize)
        try:
            return Preprocessing(
                self.sampling.resolve(wanted),
                resize=crop * 9 // 8 if self.resize is None else self.resize,
                crop=crop,
                mean=self.mean or wanted.mean,
                std=self.std or wanted.std,
                region=self.region,
            )
        except ValueError as error:
            raise UserError(f"preprocessing: {error}") from None


@dataclass(frozen=True)
class OptimizerRecipe:
    """Optimizer, learning-rate schedule and batches.

    Attributes:
        name: sgd with momentum, or adamw.
        learning_rate: the highest one of the schedule.
        extractor_rate: factor of the learning rate of the extractor, which may have pretrained weights; above 0 to 1.
        momentum: of sgd, 0 to less than 1.
        weight_decay: 0 to less than 1.
        schedule: step multiplies by 0.1 after each milestone; one-cycle rises for a quarter of all steps and falls;
            cosine rises linearly over `warmup` and falls to 0 along half a cosine.
        milestones: epochs after which the step schedule multiplies by 0.1, ascending.
        warmup: share of all steps over which the cosine schedule rises, 0 to less than 1.
        class_balance: against rare classes: weights multiplies a clip's recognition loss by n / (k n_c), for k classes
            of which its own has n_c of n training clips; sampling draws the clips of an epoch, with repetitions, so
            that all classes are equally likely. auto is none in training, and in fine-tuning what the run had.
        label_smoothing: share of each label that is spread evenly over all classes, 0 to less than 1.
        epochs: passes over the training clips.
        batch_size: clips per batch, over all processes, which share them.
        accumulate: batches per optimizer step: 8 with a batch_size of 8 make a step of 64 clips. Batch norm still sees
            one batch at a time.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    extractor_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0005
    schedule: Literal["step", "one-cycle", "cosine", "constant"] = "step"
    milestones: tuple[int, ...] = ()
    warmup: float = 0.05
    class_balance: Literal["auto", "none", "weights", "sampling"] = "auto"
    label_smoothing: float = 0.0
    epochs: int = 10
    batch_size: int = 64
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}: got {getattr(self, name)}, expected at least 1")
        if not 0 < self.learning_rate < float("inf"):
            raise UserError(f"optimizer.learning_rate: got {self.learning_rate}, expected a number above 0")
        if not 0 < self.extractor_rate <= 1:
            raise UserError(f"optimizer.extractor_rate: got {self.extractor_rate}, expected above 0 to 1")
        for name in ("momentum", "weight_decay", "warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}: got {getattr(self, name)}, expected 0 to less than 1")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise UserError(f"optimizer.milestones: got {list(self.milestones)}, expected ascending epochs")

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values; what earlier versions did not have is there only where it acts."""
        value = asdict(self) | {"milestones": list(self.milestones)}
        if self.class_balance in ("auto", "none"):
            del value["class_balance"]
        if self.extractor_rate == 1:
            del value["extractor_rate"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "OptimizerRecipe":
        """The recipe that `as_json` wrote."""
        return cls(**{**value, "milestones": tuple(value["milestones"])})


@dataclass(frozen=True)
class LoaderRecipe:
    """How clips are read.

    Attributes:
        workers: processes that prepare clips, each with one that decodes; 0 prepares them in the training process; auto
            is 0 on a CPU, and one less than there are cores, at most 8, per GPU. `stabn profile` measures what is best.
        cache: keep all decoded videos in memory at network size (needs workers 0); for data sets of some hundred clips.
        timeout: seconds after which a video that is still being decoded counts as broken; 0 waits without limit, and
            decodes without a process of its own.
        broken: share of a split's clips that may be unreadable, 0 to 1, before training ends; null for a hundredth, or
            ten clips if half of the split is left.
        views: of each training clip whose features are kept (`network.freeze` extractor): so many random crops, frames
            and colours, which the epochs take in turn; 0 computes features at every step.
        features: folder of the kept features, by default "features" beside the run; runs with the same extractor share
            them.
        features_gb: size in GB that they may have.
        features_precision: 16 or 32 bits per number.
        decoder: auto uses torchcodec, if installed, for files that are read again, and gives the same frames as pyav;
            cuda is torchcodec on the GPU, whose colours are rounded differently.
    """

    workers: int | Literal["auto"] = "auto"
    cache: bool = False
    timeout: float = TIMEOUT
    broken: float | None = None
    decoder: Decoder = "auto"
    views: int = 4
    features: str | None = None
    features_gb: float = 50.0
    features_precision: Literal["16", "32"] = "16"

    def __post_init__(self) -> None:
        if not 0 <= self.timeout < float("inf"):
            raise UserError(f"loader.timeout: got {self.timeout}, expected seconds from 0")
        if self.views < 0:
            raise UserError(f"loader.views: got {self.views}, expected 0 or more")
        if self.broken is not None and not 0 <= self.broken <= 1:
            raise UserError(f"loader.broken: got {self.broken}, expected a share in 0..1")
        if self.workers != "auto" and self.workers < 0:
            raise UserError(f"loader.workers: got {self.workers}, expected 0 or more")
        if self.cache and self.workers not in ("auto", 0):
            raise UserError(f"loader.cache: needs loader.workers 0, got {self.workers}; each worker would keep a copy")


@dataclass(frozen=True)
class CorrectionRecipe:
    """How a network learns from edits; `stabn.training.correction` says what auto is, docs/results.md compares.

    Attributes:
        init: `scratch` retrains from the run's initialisation, with the edits from the first step (ours); `checkpoint`
            continues from the run's weights (the paper); auto takes scratch where that is a matter of minutes.
        mechanism: keep leaves the network's own; the others, as in `network`, replace it, also in the control.
        freeze: `extractor` keeps the extractor's weights and batch-norm statistics; `none` trains the whole network.
            What the run itself has frozen stays frozen. auto: extractor with init checkpoint, none with scratch.
        loss: squared is Eq. 6; balanced gives the relevant frames, however few, the same total weight as the others;
            cross-entropy is the binary one. With --where it applies to the cells of a frame likewise. auto: squared
            with init checkpoint, balanced with scratch.
        views: edited shows a clip at exactly the edited frames; any at random frames like all clips, with scores
            interpolated between the edited ones (uniform sampling only). auto: any with init scratch, where possible.
        guided: share of the edited clips, drawn at every step, whose perception branch sees the edited scores in place
            of the network's own; 0 to 1.
        gamma_where: weight of the spatial loss of --where, above 0; null: 100 with the balanced loss, else 5.
        spread: also learn, in training clips of the same class that are alike, what was marked in the edited ones,
            weighted by how sure it is; for few edits.
    """

    init: Literal["auto", "checkpoint", "scratch"] = "auto"
    mechanism: Literal["keep", Mechanism] = "keep"
    freeze: Literal["auto", "extractor", "none"] = "auto"
    loss: Literal["auto", EditLossForm] = "auto"
    views: Literal["auto", "edited", "any"] = "auto"
    guided: float = 0.0
    gamma_where: float | None = None
    spread: bool = False

    def __post_init__(self) -> None:
        if self.gamma_where is not None and not 0 < self.gamma_where < float("inf"):
            raise UserError(f"correction.gamma_where: got {self.gamma_where}, expected a number above 0")
        if not 0 <= self.guided <= 1:
            raise UserError(f"correction.guided: got {self.guided}, expected a share in 0..1")


PAPER_CORRECTION = CorrectionRecipe("checkpoint", "keep", "extractor", "squared", "edited", gamma_where=5.0)
"""The paper's form: Eqs. 5 and 6."""
SMALL_AUGMENTATION = Augmentation(jitter=0.2, flip=True)
SMALL_OPTIMIZER = OptimizerRecipe(
    name="adamw", learning_rate=0.001, weight_decay=0.01, schedule="one-cycle", epochs=10, batch_size=8
)
SMALL_FINETUNING = OptimizerRecipe(
    name="adamw", learning_rate=0.001, weight_decay=0.01, schedule="one-cycle", epochs=3, batch_size=8
)
