"""Texts: tokenizers, prompt templates, and class names with their synonyms."""

from typing import TYPE_CHECKING

from segjax import lazy

if TYPE_CHECKING:
    from segjax.text.clip_tokenizer import ClipTokenizer
    from segjax.text.embeddings import TextEmbeddings, embed_names
    from segjax.text.names import BACKGROUND_NOUNS, ClassNames, merge_names
    from segjax.text.prompts import TEMPLATES, ensemble, fill_templates
    from segjax.text.tokenizer_file import TokenizerFile
else:
    __getattr__, __dir__, __all__ = lazy.attach(__name__)
