from smolora_core.batches.padding import IGNORED as IGNORED
from smolora_core.batches.padding import Collator as Collator
from smolora_core.batches.padding import concatenate as concatenate
from smolora_core.batches.padding import pad as pad
from smolora_core.batches.tokens import padding_id as padding_id
from smolora_core.batches.tokens import token_ids as token_ids
