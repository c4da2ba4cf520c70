from smolora_core.config.dump import canonical_json as canonical_json
from smolora_core.data.chat.encode import encode_chats as encode_chats
from smolora_core.data.formats.conversation import Conversation as Conversation
from smolora_core.data.formats.shapes import Example as Example
from smolora_core.data.preprocess import Context as Context
from smolora_core.data.sources.located import describe_type as describe_type
from smolora_core.data.sources.located import text_problem as text_problem
from smolora_core.data.splits import is_held_out as is_held_out
