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
    "BetaSchedule.zero_terminal_snr": "multidiff.core.schedules:BetaSchedule.zero_terminal_snr",
    "BetaSchedule": "multidiff.core.schedules:BetaSchedule",
    "LogSNRSchedule": "multidiff.core.schedules:LogSNRSchedule",
    # Processes, and what they are made of.
    "GaussianProcess": "multidiff.core.gaussian:GaussianProcess",
    "BlockMaskProcess": "multidiff.core.block_masking:BlockMaskProcess",
    "MaskProcess": "multidiff.core.masking:MaskProcess",
    "EditProcess": "multidiff.core.edits:EditProcess",
    "LogLinearMasks": "multidiff.core.mask_schedules:LogLinearMasks",
    "PolynomialMasks": "multidiff.core.mask_schedules:PolynomialMasks",
    "CosineMasks": "multidiff.core.mask_schedules:CosineMasks",
    "SimpleLoss": "multidiff.core.losses:SimpleLoss",
    "ConstantWeight": "multidiff.core.losses:ConstantWeight",
    "HybridLoss": "multidiff.core.losses:HybridLoss",
    "MinSNR": "multidiff.core.losses:MinSNR",
    "UniformTimes": "multidiff.core.times:UniformTimes",
    "DiscreteTimes": "multidiff.core.times:DiscreteTimes",
    "ImportanceTimes": "multidiff.core.times:ImportanceTimes",
    # Networks that several wings share.
    "TokenDenoiser": "multidiff.nn.tokens:TokenDenoiser",
    # Pictures.
    "PictureDiffusion": "multidiff.image.diffusion:PictureDiffusion",
    "PictureAutoencoder": "multidiff.image.autoencoding:PictureAutoencoder",
    "PixelDomain": "multidiff.image.domains:PixelDomain",
    "LatentDomain": "multidiff.image.domains:LatentDomain",
    "Autoencoder": "multidiff.image.autoencoder:Autoencoder",
    "TokenAutoencoder": "multidiff.image.token_autoencoding:TokenAutoencoder",
    "QuantisedAutoencoder": "multidiff.image.token_autoencoding:QuantisedAutoencoder",
    "TokenImages": "multidiff.image.token_images:TokenImages",
    "PictureTokens": "multidiff.image.token_domain:PictureTokens",
    "TokenWalk": "multidiff.image.token_walk:TokenWalk",
    "EmaCodebook": "multidiff.image.codebook:EmaCodebook",
    "FiniteScalar": "multidiff.image.quantisers:FiniteScalar",
    "LookupFree": "multidiff.image.quantisers:LookupFree",
    "PatchDiscriminator": "multidiff.image.discriminator:PatchDiscriminator",
    "PerceptualDistance": "multidiff.image.perceptual:PerceptualDistance",
    "UNet": "multidiff.image.unet:UNet",
    "TextEncoder": "multidiff.image.text_encoder:TextEncoder",
    "WordTokenizer": "multidiff.image.tokenizers:WordTokenizer",
    "ClipTokenizer": "multidiff.image.tokenizers:ClipTokenizer",
    "Pictures": "multidiff.image.data:Pictures",
    "LatentCache": "multidiff.image.latents:LatentCache",
    "PictureClassifier": "multidiff.image.features:PictureClassifier",
    # Texts.
    "TextDiffusion": "multidiff.text.diffusion:TextDiffusion",
    "MaskedText": "multidiff.text.masked:MaskedText",
    "TokenDomain": "multidiff.text.masked:TokenDomain",
    "EditedText": "multidiff.text.edited:EditedText",
    "Editor": "multidiff.text.editor:Editor",
    "EditWalk": "multidiff.text.edit_walk:EditWalk",
    "TextDomain": "multidiff.text.domain:TextDomain",
    "TextClassifier": "multidiff.text.classifier:TextClassifier",
    "EmbeddedDomain": "multidiff.text.embedded:EmbeddedDomain",
    "TextDenoiser": "multidiff.text.denoiser:TextDenoiser",
    "MeaningTable": "multidiff.text.meaning:MeaningTable",
    "WordVocabulary": "multidiff.text.vocabulary:WordVocabulary",
    "CharacterVocabulary": "multidiff.text.vocabulary:CharacterVocabulary",
    "SentencePieceVocabulary": "multidiff.text.pieces:SentencePieceVocabulary",
    "HuggingFaceVocabulary": "multidiff.text.pieces:HuggingFaceVocabulary",
    "Sentences": "multidiff.text.data:Sentences",
    "Stretches": "multidiff.text.stretches:Stretches",
    # Audio.
    "Vocoder": "multidiff.audio.vocoder:Vocoder",
    "MelPreset": "multidiff.audio.mel:MelPreset",
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
        "inspect": "multidiff.audio.inspection:inspect",
    },
    "PictureDiffusion": {
        "sample": "multidiff.image.commands:sample",
        "eval": "multidiff.image.evaluation:measure",
        "export": "multidiff.image.published.conversion:export",
        "preview": "multidiff.image.previews:preview",
        "inspect": "multidiff.image.inspection:inspect",
    },
    "PictureAutoencoder": {
        "eval": "multidiff.image.reconstruction:measure",
        "preview": "multidiff.image.previews:preview_autoencoder",
        "inspect": "multidiff.image.inspection:inspect",
    },
    "TokenAutoencoder": {
        "eval": "multidiff.image.reconstruction:measure",
        "preview": "multidiff.image.previews:preview_autoencoder",
        "inspect": "multidiff.image.inspection:inspect",
    },
    "TokenImages": {
        "sample": "multidiff.image.token_commands:sample",
        "eval": "multidiff.image.token_evaluation:measure",
        "preview": "multidiff.image.previews:preview",
        "inspect": "multidiff.image.inspection:inspect",
    },
    "TextDiffusion": {
        "sample": "multidiff.text.commands:sample",
        "eval": "multidiff.text.evaluation:measure",
        "preview": "multidiff.text.previews:preview",
        "inspect": "multidiff.text.inspection:inspect",
    },
    "MaskedText": {
        "sample": "multidiff.text.masked_commands:sample",
        "eval": "multidiff.text.masked_evaluation:measure",
        "preview": "multidiff.text.previews:preview_masked",
        "inspect": "multidiff.text.inspection:inspect",
    },
    "EditedText": {
        "sample": "multidiff.text.edit_commands:sample",
        "eval": "multidiff.text.edit_evaluation:measure",
        "preview": "multidiff.text.edit_previews:preview",
        "inspect": "multidiff.text.inspection:inspect",
    },
    "TextClassifier": {
        "eval": "multidiff.text.control_evaluation:measure",
        "inspect": "multidiff.text.inspection:inspect",
    },
    "PictureClassifier": {
        "eval": "multidiff.image.feature_distance:measure",
        "inspect": "multidiff.image.inspection:inspect",
    },
}

# Foreign checkpoints: each module is asked whether it knows a file; the first that does converts.
CONVERTERS = ("multidiff.image.published.conversion", "multidiff.audio.lmnt")
