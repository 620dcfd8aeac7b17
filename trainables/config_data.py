"""TrialConfig.data: where the training examples come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from trainables.config_block import Block, fixed, kind_or


class LogMel(Block):
    """Log-mel spectrogram: natural log of the mel power, mel bands as channels."""

    sample_rate: int | None = fixed(
        None,
        "Hz that every file is resampled to; null takes the lowest rate found in the folder, "
        "at most 16000, so that nothing is upsampled",
        ge=1000,
        le=192_000,
    )
    mels: int = fixed(64, "mel bands", ge=1, le=512)
    window_ms: float = fixed(32.0, "analysis window in milliseconds", gt=0, le=1000)
    hop_ms: float = fixed(10.0, "hop between frames in milliseconds", gt=0, le=1000)
    fmin: float = fixed(0.0, "lowest mel frequency in Hz", ge=0)


class Data(Block):
    """What all kinds of data share."""

    heldout: float = fixed(0.2, "share of files held out for the metrics", gt=0, lt=1)
    split_seed: int = fixed(0, "seed of the split by file", ge=0, lt=2**31)


class Clips(Data):
    """Sequences of frames that are cut into clips."""

    clip_frames: int = fixed(32, "frames in a clip", ge=1, le=65_536)


class SyntheticData(Clips):
    """Embedded speech-like audio from a seeded source-filter synthesiser."""

    kind: Literal["synthetic"] = "synthetic"
    files: int = fixed(400, "utterances to synthesise", ge=2, le=100_000)
    seconds: float = fixed(4.0, "mean length of an utterance in seconds", gt=0.2, le=600)
    seed: int = fixed(0, "seed of the synthesiser", ge=0, lt=2**31)
    features: LogMel = LogMel()


class DigitsData(Data):
    """scikit-learn's 1,797 real handwritten digits, 8 x 8 pixels."""

    kind: Literal["digits"] = "digits"


class AudioData(Clips):
    """A folder of wav, flac, ogg or mp3 files, read recursively."""

    kind: Literal["audio"] = "audio"
    path: str = fixed(..., "the folder", min_length=1)
    features: LogMel = LogMel()


class ImagesData(Data):
    """A folder of image files, read recursively, each resized and centre-cropped."""

    kind: Literal["images"] = "images"
    path: str = fixed(..., "the folder", min_length=1)
    size: int = fixed(64, "height and width in pixels", ge=4, le=1024)
    grayscale: bool = fixed(False, "one channel instead of three")


class ArraysData(Clips):
    """A .npy, .npz or .safetensors file, or a folder of them.

    An array of two axes is one sequence [frames, channels], cut into clips; one of three or four
    axes holds examples [n, channels, frames] or [n, channels, height, width].
    """

    kind: Literal["arrays"] = "arrays"
    path: str = fixed(..., "the file or folder", min_length=1)


class FactoryData(Clips):
    """A user's own function that returns {name: array}, arrays as in `arrays`."""

    kind: Literal["factory"] = "factory"
    factory: str = fixed(..., "package.module:function", pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, JsonValue] = fixed({}, "keyword arguments of the function")


DataConfig = Annotated[
    SyntheticData | DigitsData | AudioData | ImagesData | ArraysData | FactoryData,
    Field(discriminator="kind"),
    kind_or("synthetic"),
]
