"""Built-in tasks."""

from collections.abc import Iterable

from smolora_core import Task, hookimpl


@hookimpl
def smolora_tasks() -> Iterable[Task]:
    """Register the built-in tasks."""
    yield Task(
        name="causal-lm",
        summary="next-token prediction, on whole texts or on completions of prompts",
        implementation="smolora_plugins.tasks.causal_lm:CausalLM",
        model_class="AutoModelForCausalLM",
        peft_task_type="CAUSAL_LM",
        loss="cross-entropy",
        architectures=("ForCausalLM", "LMHeadModel"),
    )
    yield Task(
        name="sequence-classification",
        summary="classification of texts, with one label per text or several",
        implementation="smolora_plugins.tasks.sequence_classification:SequenceClassification",
        model_class="AutoModelForSequenceClassification",
        peft_task_type="SEQ_CLS",
        loss="cross-entropy",
        multi_label_loss="bce",
        predicts="row",
        new_head=True,
        architectures=("ForSequenceClassification",),
        formats=("labelled",),
    )
    yield Task(
        name="regression",
        summary="prediction of one or more numbers per text",
        implementation="smolora_plugins.tasks.regression:Regression",
        model_class="AutoModelForSequenceClassification",
        peft_task_type="SEQ_CLS",
        loss="mse",
        predicts="row",
        new_head=True,
        formats=("scored",),
    )
    yield Task(
        name="token-classification",
        summary="classification of each word, such as named entities",
        implementation="smolora_plugins.tasks.token_classification:TokenClassification",
        model_class="AutoModelForTokenClassification",
        peft_task_type="TOKEN_CLS",
        loss="cross-entropy",
        predicts="token",
        new_head=True,
        architectures=("ForTokenClassification",),
        formats=("tokens",),
    )
    yield Task(
        name="masked-lm",
        summary="prediction of masked tokens",
        implementation="smolora_plugins.tasks.masked_lm:MaskedLM",
        model_class="AutoModelForMaskedLM",
        loss="cross-entropy",
        predicts="token",
        architectures=("ForMaskedLM", "ForPreTraining"),
        formats=("text",),
    )
    yield Task(
        name="whole-word-masked-lm",
        summary="prediction of masked words, with all tokens of a word masked together",
        implementation="smolora_plugins.tasks.masked_lm:WholeWordMaskedLM",
        model_class="AutoModelForMaskedLM",
        loss="cross-entropy",
        predicts="token",
        formats=("text",),
    )
    yield Task(
        name="seq2seq-lm",
        summary="generation of completions from prompts with an encoder-decoder",
        implementation="smolora_plugins.tasks.seq2seq_lm:Seq2SeqLM",
        model_class="AutoModelForSeq2SeqLM",
        peft_task_type="SEQ_2_SEQ_LM",
        loss="cross-entropy",
        predicts="token",
        architectures=("ForConditionalGeneration",),
        formats=("prompt-completion", "instruction"),
    )
