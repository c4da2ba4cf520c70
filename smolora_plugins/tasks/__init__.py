"""Tasks that come with SmoLoRA."""

from collections.abc import Iterable

from smolora_core import Task, hookimpl


@hookimpl
def smolora_tasks() -> Iterable[Task]:
    """Offer the built-in tasks."""
    yield Task(
        name="causal-lm",
        summary="predict the next token of a text, or of the completion of a prompt",
        implementation="smolora_plugins.tasks.causal_lm:CausalLM",
        model_class="AutoModelForCausalLM",
        peft_task_type="CAUSAL_LM",
        loss="cross-entropy",
        architectures=("ForCausalLM", "LMHeadModel"),
    )
    yield Task(
        name="sequence-classification",
        summary="say what a text is: one of several labels, or all that hold",
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
        summary="give a text one number or several",
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
        summary="say what each word of a sentence is",
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
        summary="fill in tokens that are masked",
        implementation="smolora_plugins.tasks.masked_lm:MaskedLM",
        model_class="AutoModelForMaskedLM",
        loss="cross-entropy",
        predicts="token",
        architectures=("ForMaskedLM", "ForPreTraining"),
        formats=("text",),
    )
    yield Task(
        name="whole-word-masked-lm",
        summary="fill in words that are masked with all their tokens",
        implementation="smolora_plugins.tasks.masked_lm:WholeWordMaskedLM",
        model_class="AutoModelForMaskedLM",
        loss="cross-entropy",
        predicts="token",
        formats=("text",),
    )
    yield Task(
        name="seq2seq-lm",
        summary="write the completion of a prompt with an encoder and a decoder",
        implementation="smolora_plugins.tasks.seq2seq_lm:Seq2SeqLM",
        model_class="AutoModelForSeq2SeqLM",
        peft_task_type="SEQ_2_SEQ_LM",
        loss="cross-entropy",
        predicts="token",
        architectures=("ForConditionalGeneration",),
        formats=("prompt-completion", "instruction"),
    )
