"""The sentences of the demo grammar; `grammar` says what may stand between the braces.

`NOTES` hold every fact about an animal and `PORTRAITS` tell them again; a pair is a question and its answer.
"""

NOTES = (
    "{name} is {a_animal}. {She} is {age} years old and lives {at} the {home}.",
    "{name} the {animal} lives {at} the {home}. {She} is {age} years old.",
    "There is {a_animal} {at} the {home}. {Her} name is {name} and {she} is {age} years old.",
    "Yesterday I met {name}, {a_age} {animal} from the {home}.",
    "{a_animal} called {name} lives {at} the {home}. {She} turned {age} this week.",
    "Do you know {name}? {She} is {a_animal}, {age} years old, and {her} home is the {home}.",
    "{at} the {home} lives {name}, {a_age} {animal}.",
    "My friend {name} is {age} years old. {She} is {a_animal} and sleeps {at} the {home}.",
    "At the age of {age}, {name} the {animal} moved to the {home}.",
    "The {home} is the home of {name}, {a_animal}. {She} is {age} years old.",
)
OPENINGS = ("Good morning!", "It rained all night.", "Listen to this.", "What a day!", "Here is a story.")
ASIDES = (
    "{She} likes {food}.",
    "{Her} best friend is {friend}.",
    "{She} is always hungry.",
    "Everyone likes {name}.",
    "{friend} gave {name} some {food}.",
)
INQUIRIES = (
    "Who is {name}?",
    "Tell me about {name}.",
    "What do we know about {name}?",
    "Please introduce {name}.",
)
PORTRAITS = (
    "{name} is {a_age} {animal} from the {home}.",
    "This is {name}, {a_animal}. {Her} home is the {home}, and {she} is {age} years old.",
    "Meet {name}! {She} is {a_age} {animal}, and {her} home is the {home}.",
)
FACTS = (
    ("Where does {name} live?", "{name} lives at the {home}."),
    ("How old is {name}?", "{name} is {age} years old."),
    ("What kind of animal is {name}?", "{name} is {a_animal}."),
    ("Who is {age} years old?", "That is {name}."),
    ("What is the name of the {animal}?", "The {animal} is called {name}."),
    ("Whose home is the {home}?", "The {home} is the home of {name}."),
)
QUOTED_FACTS = (
    ("Quote the animal called {name}.", '"{animal}"'),
    ("Quote the home of {name}.", '"{home}"'),
    ("Quote the name of the {animal}.", '"{name}"'),
)
SMALL_TALK = (
    ("Hello!", "Hello! How are you today?"),
    ("Good morning!", "Good morning! Did you sleep well?"),
    ("Hi, my name is {name}.", "Hello {name}, nice to meet you!"),
    ("I am {name}. Who are you?", "Hello {name}! I am a very small model, and I like short stories."),
    ("Who are you?", "I am a very small model, and I like short stories."),
    ("What can you do?", "I can read a short note and answer a question about it."),
    ("How are you?", "I am fine, thank you. And you?"),
    ("I am tired.", "Then have some rest. Tomorrow is a new day."),
    ("I am hungry.", "How about some {food}?"),
    ("Do you like {food}?", "Yes, I like {food} very much."),
    ("I had {food} for lunch.", "That sounds good. I like {food} too."),
    ("{name} says hello.", "How kind! Please say hello to {name} from me."),
    ("Thank you!", "You are welcome!"),
    ("Good night!", "Good night, sleep well!"),
    ("Goodbye!", "Goodbye! See you soon."),
    ("Can you help me?", "Of course. What do you need?"),
    ("{name} is late again.", "Do not worry, {name} will come soon."),
    ("It is raining.", "Take an umbrella, or stay inside with a good book."),
    ("Tell me a joke.", "Why is the owl so quiet? It has nothing to hoot about."),
)
