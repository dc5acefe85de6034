"""Registry: the components that a recipe may name, and the commands of each kind of model."""

COMPONENTS = {
    # Training.
    "Trainer": "multidiff.training.trainer:Trainer",
    "Batches": "multidiff.training.batches:Batches",
    # Noise schedules.
    "BetaSchedule.linear": "multidiff.core.gaussian.schedules:BetaSchedule.linear",
    "BetaSchedule.scaled_linear": "multidiff.core.gaussian.schedules:BetaSchedule.scaled_linear",
    "BetaSchedule.cosine": "multidiff.core.gaussian.schedules:BetaSchedule.cosine",
    "BetaSchedule.sqrt": "multidiff.core.gaussian.schedules:BetaSchedule.sqrt",
    "BetaSchedule.zero_terminal_snr": (
        "multidiff.core.gaussian.schedules:BetaSchedule.zero_terminal_snr"
    ),
    "BetaSchedule": "multidiff.core.gaussian.schedules:BetaSchedule",
    "LogSNRSchedule": "multidiff.core.gaussian.schedules:LogSNRSchedule",
    # Processes and their parts.
    "GaussianProcess": "multidiff.core.gaussian.process:GaussianProcess",
    "BlockMaskProcess": "multidiff.core.discrete.blocks:BlockMaskProcess",
    "MaskProcess": "multidiff.core.discrete.absorbing:MaskProcess",
    "UniformProcess": "multidiff.core.discrete.uniform:UniformProcess",
    "EditProcess": "multidiff.core.edit.process:EditProcess",
    "LogLinearMasks": "multidiff.core.discrete.schedules:LogLinearMasks",
    "PolynomialMasks": "multidiff.core.discrete.schedules:PolynomialMasks",
    "CosineMasks": "multidiff.core.discrete.schedules:CosineMasks",
    "SimpleLoss": "multidiff.core.gaussian.losses:SimpleLoss",
    "ConstantWeight": "multidiff.core.gaussian.losses:ConstantWeight",
    "HybridLoss": "multidiff.core.gaussian.losses:HybridLoss",
    "MinSNR": "multidiff.core.gaussian.losses:MinSNR",
    "UniformTimes": "multidiff.core.gaussian.timesteps:UniformTimes",
    "DiscreteTimes": "multidiff.core.gaussian.timesteps:DiscreteTimes",
    "ImportanceTimes": "multidiff.core.gaussian.timesteps:ImportanceTimes",
    # Networks shared by the modality packages.
    "TokenDenoiser": "multidiff.nn.token_denoiser:TokenDenoiser",
    # Images.
    "ImageDiffusion": "multidiff.image.diffusion.model:ImageDiffusion",
    "ImageAutoencoder": "multidiff.image.autoencoders.training:ImageAutoencoder",
    "PixelDomain": "multidiff.image.diffusion.domains:PixelDomain",
    "LatentDomain": "multidiff.image.diffusion.domains:LatentDomain",
    "AutoencoderKL": "multidiff.image.autoencoders.kl:AutoencoderKL",
    "TokenAutoencoder": "multidiff.image.autoencoders.vq:TokenAutoencoder",
    "VQAutoencoder": "multidiff.image.autoencoders.vq:VQAutoencoder",
    "MaskGIT": "multidiff.image.maskgit.model:MaskGIT",
    "ImageTokenDomain": "multidiff.image.maskgit.domain:ImageTokenDomain",
    "MaskGITSamplingConfig": "multidiff.image.maskgit.sampling_config:MaskGITSamplingConfig",
    "VectorQuantizerEMA": "multidiff.image.autoencoders.codebook:VectorQuantizerEMA",
    "FSQ": "multidiff.image.autoencoders.quantizers:FSQ",
    "LFQ": "multidiff.image.autoencoders.quantizers:LFQ",
    "PatchDiscriminator": "multidiff.image.autoencoders.discriminator:PatchDiscriminator",
    "PerceptualDistance": "multidiff.image.autoencoders.perceptual:PerceptualDistance",
    "UNet": "multidiff.image.diffusion.unet:UNet",
    "TextEncoder": "multidiff.image.diffusion.text_encoder:TextEncoder",
    "WordTokenizer": "multidiff.image.tokenizers:WordTokenizer",
    "ClipTokenizer": "multidiff.image.tokenizers:ClipTokenizer",
    "Images": "multidiff.image.data.images:Images",
    "LatentCache": "multidiff.image.data.latents:LatentCache",
    "ImageClassifier": "multidiff.image.metrics.classifier:ImageClassifier",
    # Texts.
    "TextDiffusion": "multidiff.text.diffusion_lm.model:TextDiffusion",
    "MaskedText": "multidiff.text.masked.model:MaskedText",
    "TokenDomain": "multidiff.text.masked.model:TokenDomain",
    "EditedText": "multidiff.text.diffuser.model:EditedText",
    "Editor": "multidiff.text.diffuser.network:Editor",
    "EditSamplingConfig": "multidiff.text.diffuser.sampling_config:EditSamplingConfig",
    "TextDomain": "multidiff.text.domain:TextDomain",
    "TextClassifier": "multidiff.text.diffusion_lm.classifier:TextClassifier",
    "EmbeddedDomain": "multidiff.text.diffusion_lm.domain:EmbeddedDomain",
    "TextDenoiser": "multidiff.text.diffusion_lm.denoiser:TextDenoiser",
    "MeaningTable": "multidiff.text.data.attributes:MeaningTable",
    "WordVocabulary": "multidiff.text.data.vocabulary:WordVocabulary",
    "CharacterVocabulary": "multidiff.text.data.vocabulary:CharacterVocabulary",
    "SentencePieceVocabulary": "multidiff.text.data.subwords:SentencePieceVocabulary",
    "HuggingFaceVocabulary": "multidiff.text.data.subwords:HuggingFaceVocabulary",
    "Sentences": "multidiff.text.data.sentences:Sentences",
    "TextChunks": "multidiff.text.data.chunks:TextChunks",
    # Audio.
    "Vocoder": "multidiff.audio.vocoder.model:Vocoder",
    "MelPreset": "multidiff.audio.mel:MelPreset",
    "WaveformDomain": "multidiff.audio.vocoder.domains:WaveformDomain",
    "SpectralDomain": "multidiff.audio.vocoder.domains:SpectralDomain",
    "WaveGrad": "multidiff.audio.vocoder.wavegrad:WaveGrad",
    "MDCTDenoiser": "multidiff.audio.vocoder.mdct_denoiser:MDCTDenoiser",
    "SpeechSegments": "multidiff.audio.data.segments:SpeechSegments",
    # Speech from text.
    "AcousticModel": "multidiff.audio.tts.model:AcousticModel",
    "FitMelStatistics": "multidiff.audio.tts.model:FitMelStatistics",
    "MelDomain": "multidiff.audio.tts.task:MelDomain",
    "MelDecoder": "multidiff.audio.tts.mel_decoder:MelDecoder",
    "PhoneEncoder": "multidiff.audio.tts.phone_encoder:PhoneEncoder",
    "SpeechSamplingConfig": "multidiff.audio.tts.sampling_config:SpeechSamplingConfig",
    "Utterances": "multidiff.audio.tts.utterances:Utterances",
}

# Commands of the command line for each kind of model.
COMMANDS = {
    "Vocoder": {
        "synth": "multidiff.audio.cli:synth",
        "sample": "multidiff.audio.cli:sample",
        "eval": "multidiff.audio.cli:measure",
        "preview": "multidiff.audio.vocoder.previews:preview",
        "inspect": "multidiff.audio.data.inspection:inspect",
    },
    "AcousticModel": {
        "synth": "multidiff.audio.tts.cli:synth",
        "preview": "multidiff.audio.tts.previews:preview",
        "inspect": "multidiff.audio.tts.inspection:inspect",
    },
    "ImageDiffusion": {
        "sample": "multidiff.image.cli:sample",
        "eval": "multidiff.image.diffusion.evaluation:measure",
        "export": "multidiff.image.stable_diffusion.conversion:export",
        "preview": "multidiff.image.previews:preview",
        "inspect": "multidiff.image.data.inspection:inspect",
    },
    "ImageAutoencoder": {
        "eval": "multidiff.image.autoencoders.evaluation:measure",
        "preview": "multidiff.image.previews:preview_autoencoder",
        "inspect": "multidiff.image.data.inspection:inspect",
    },
    "TokenAutoencoder": {
        "eval": "multidiff.image.autoencoders.evaluation:measure",
        "preview": "multidiff.image.previews:preview_autoencoder",
        "inspect": "multidiff.image.data.inspection:inspect",
    },
    "MaskGIT": {
        "sample": "multidiff.image.maskgit.cli:sample",
        "eval": "multidiff.image.maskgit.evaluation:measure",
        "preview": "multidiff.image.previews:preview",
        "inspect": "multidiff.image.data.inspection:inspect",
    },
    "TextDiffusion": {
        "sample": "multidiff.text.diffusion_lm.cli:sample",
        "eval": "multidiff.text.diffusion_lm.evaluation:measure",
        "preview": "multidiff.text.previews:preview",
        "inspect": "multidiff.text.data.inspection:inspect",
    },
    "MaskedText": {
        "sample": "multidiff.text.masked.cli:sample",
        "eval": "multidiff.text.masked.evaluation:measure",
        "preview": "multidiff.text.previews:preview_masked",
        "inspect": "multidiff.text.data.inspection:inspect",
    },
    "EditedText": {
        "sample": "multidiff.text.diffuser.cli:sample",
        "eval": "multidiff.text.diffuser.evaluation:measure",
        "preview": "multidiff.text.diffuser.previews:preview",
        "inspect": "multidiff.text.data.inspection:inspect",
    },
    "TextClassifier": {
        "eval": "multidiff.text.diffusion_lm.control_evaluation:measure",
        "inspect": "multidiff.text.data.inspection:inspect",
    },
    "ImageClassifier": {
        "eval": "multidiff.image.metrics.feature_distance:measure",
        "inspect": "multidiff.image.data.inspection:inspect",
    },
}

# Converters of foreign checkpoints: each module is asked in turn whether it recognises a file.
CONVERTERS = ("multidiff.image.stable_diffusion.conversion", "multidiff.audio.vocoder.lmnt")
