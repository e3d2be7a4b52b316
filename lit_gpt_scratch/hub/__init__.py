"""Import and export of Hugging Face folders with transformers (the extra ``hub``)."""

try:
    import transformers
except ImportError as error:
    raise ValueError("this needs Hugging Face's transformers: pip install 'lit_gpt_scratch[hub]'") from error

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
