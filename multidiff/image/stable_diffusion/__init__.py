"""Published weights of Stable Diffusion 1.x and 2.x: read, written, and changed by LoRA.

The way in is ``conversion``: ``knows`` a source, ``convert`` it into a recipe and tensors by our
names, ``export`` a model of ours. A source comes in one of two forms. A ``folder`` of the
diffusers library says in configurations what it is, its tensors have our names already, and
``folder_writing`` writes one. A ``single_file``, read and written in one module, says nothing but
tensors: ``naming`` maps their names to ours and back, ``tensors`` bridges what differs by more
than the name, and ``shapes`` tells from them what the model is. Both forms are told in the
``Words`` of ``recipe``. What lies on the disk, and what it is mistaken for, is read in
``contents``; the tokenizer's files, which travel with a model, in ``tokenizer_files``. ``lora``
stands beside all this and changes a model that is loaded.
"""
