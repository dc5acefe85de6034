"""The one plain table: the parts that a recipe may name, and the verbs of each model."""

PARTS = {
    # Training.
    "Trainer": "multidiff.training.trainer:Trainer",
    "Batches": "multidiff.training.batches:Batches",
    # Noise schedules.
    "BetaSchedule.linear": "multidiff.core.schedules:BetaSchedule.linear",
    "BetaSchedule.scaled_linear": "multidiff.core.schedules:BetaSchedule.scaled_linear",
    "BetaSchedule.cosine": "multidiff.core.schedules:BetaSchedule.cosine",
    "BetaSchedule.sqrt": "multidiff.core.schedules:BetaSchedule.sqrt",
    "BetaSchedule": "multidiff.core.schedules:BetaSchedule",
    "LogSNRSchedule": "multidiff.core.schedules:LogSNRSchedule",
    # Processes, and what they are made of.
    "GaussianProcess": "multidiff.core.gaussian:GaussianProcess",
    "SimpleLoss": "multidiff.core.losses:SimpleLoss",
    "HybridLoss": "multidiff.core.losses:HybridLoss",
    "MinSNR": "multidiff.core.losses:MinSNR",
    "UniformTimes": "multidiff.core.times:UniformTimes",
    "DiscreteTimes": "multidiff.core.times:DiscreteTimes",
    "ImportanceTimes": "multidiff.core.times:ImportanceTimes",
    # Audio.
    "Vocoder": "multidiff.audio.vocoder:Vocoder",
    "WaveformDomain": "multidiff.audio.domains:WaveformDomain",
    "WhitenedDomain": "multidiff.audio.domains:WhitenedDomain",
    "WaveGrad": "multidiff.audio.wavegrad:WaveGrad",
    "FrameDenoiser": "multidiff.audio.frames:FrameDenoiser",
    "SpeechSegments": "multidiff.audio.data:SpeechSegments",
}

# What the command line does with each kind of model.
VERBS = {
    "Vocoder": {
        "synth": "multidiff.audio.commands:synth",
        "sample": "multidiff.audio.commands:sample",
        "eval": "multidiff.audio.commands:measure",
        "preview": "multidiff.audio.previews:preview",
    },
}

# Foreign checkpoints: each is asked whether it knows a file, and the first that does converts.
CONVERTERS = ("multidiff.audio.lmnt:convert",)
