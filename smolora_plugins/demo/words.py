"""The words of the demo grammar; large inventories, so that copying a word is easier to learn than guessing it."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


HER_NAMES = _words("""
    Ada Alma Amy Anna Ava Bella Beth Cara Celia Clara Cleo Cora Daisy Dora Dina Edith Ella Elsa Emma Erin Esme Eva
    Faye Fern Flora Freya Gina Grace Greta Hanna Hazel Heidi Helen Holly Ida Ines Iris Ivy Jane Jill Joan Judy Julia
    June Kate Kira Lara Laura Leah Lena Lily Lisa Lola Lucy Luna Mabel Maria Marta Maya Mia Mila Mina Molly Nadia
    Nell Nina Nora Olga Olive Pearl Petra Pia Polly Rita Rosa Ruby Ruth Sally Sara Sofia Stella Susan Tara Tess
    Tilda Una Vera Viola Wanda Wendy Willa Xenia Yara Zelda Zoe
""")
HIS_NAMES = _words("""
    Adam Alan Albert Alex Arlo Axel Barry Basil Ben Bert Bill Boris Bruno Carl Cody Colin Cyrus Dan David Dean Dylan
    Eddie Edgar Elias Emil Eric Ethan Felix Finn Frank Fred Gary Gavin George Gus Hans Harry Henry Hugo Ian Igor
    Isaac Ivan Jack Jacob James Jasper Jim Jonas Karl Keith Kevin Kurt Leo Levi Liam Louis Luca Luke Marco Mark
    Martin Max Milo Nick Noah Oliver Omar Oscar Otto Owen Paul Pedro Peter Ralph Ray Remy Robert Robin Rory Samuel
    Scott Simon Stan Steve Sven Theo Thomas Tim Toby Tom Victor Vince Walter Will Yuri Zack
""")
ANIMALS = _words("""
    ant badger bat bear beaver bee camel cat cow crab crow deer dog donkey dove duck eagle eel falcon ferret fox
    frog gecko goat goose hamster hare hedgehog hen heron horse koala lamb lion lizard llama lynx magpie mole monkey
    moose mouse newt octopus otter owl ox panda parrot penguin pig pony puffin rabbit rat raven robin seal sheep
    snail spider squirrel stork swan tiger toad turtle walrus weasel whale wolf zebra
""")
HOMES = _words("""
    attic bakery barn bridge cabin castle cave cellar chapel church cottage farm forest garage garden harbour hotel
    house hut island kitchen library lighthouse market meadow mill museum orchard palace park pond school shed
    stable station theatre tower tunnel valley village windmill workshop
""")
ADJECTIVES = _words("""
    ancient blue bright crooked dark dusty empty golden green grey hidden hollow little lonely misty mossy narrow
    noisy old quiet red round silent silver snowy stone sunny tall tiny warm white windy wooden yellow
""")
FOODS = _words("""
    apples berries bread cake carrots cheese cherries chestnuts figs grapes honey jam lettuce melons mushrooms
    noodles nuts oats olives pancakes peaches pears peas plums porridge pumpkin rice salad seeds soup waffles
    walnuts
""")
COLOURS = ("black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "silver", "white", "yellow")
THINGS = _words("""
    balls bells books boots boxes buttons coins cups feathers hats keys kites lamps letters maps pens ribbons
    scarves shells socks spoons stones
""")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("old", "new"), ("fast", "slow"), ("dark", "bright"), ("up", "down"),
    ("wet", "dry"), ("loud", "quiet"), ("full", "empty"), ("early", "late"), ("left", "right"), ("open", "closed"),
)  # fmt: skip
