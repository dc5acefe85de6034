"""Published weights of Stable Diffusion 1.x and 2.x: read, written, and changed by LoRA.

The entry point is ``conversion``: ``knows`` recognises a source, ``convert`` makes a recipe and
tensors by our names from it, ``export`` writes a model of ours. A source has one of two forms. A
``folder`` of the diffusers library describes itself in configurations, its tensors have our names
already, and ``folder_writing`` writes one. A ``single_file``, read and written in one module, has
only tensors: ``naming`` maps their names to ours and back, ``tensors`` converts what differs by
more than the name, and ``shapes`` derives the model from them. Both forms are described by the
``Words`` of ``recipe``. The contents of files, including files often mistaken for Stable
Diffusion, are read in ``contents``; the tokenizer's files, which belong to a model, in
``tokenizer_files``. ``lora`` is independent of these and changes a loaded model.
"""
