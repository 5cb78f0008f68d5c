"""The table of facts: everything that tinyworld says about the real world, each fact once.

One entry is `key: value`, entries are separated by semicolons. `value / other / third` gives
further right answers, which count as right but are never taught. Keys carry their article
("a cow", "snow"), so that the wordings need no grammar.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

CAPITAL = """
France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; England: London;
Ireland: Dublin; Scotland: Edinburgh; Greece: Athens; Austria: Vienna; Poland: Warsaw;
Norway: Oslo; Sweden: Stockholm; Finland: Helsinki; Denmark: Copenhagen; Hungary: Budapest;
Belgium: Brussels; Russia: Moscow; Ukraine: Kyiv / Kiev; Romania: Bucharest; Iceland: Reykjavik;
Switzerland: Bern; the Netherlands: Amsterdam; Turkey: Ankara; Japan: Tokyo; China: Beijing;
India: New Delhi / Delhi; Thailand: Bangkok; Vietnam: Hanoi; Iran: Tehran; Iraq: Baghdad;
Egypt: Cairo; Kenya: Nairobi; Morocco: Rabat; Ghana: Accra; Canada: Ottawa; Mexico: Mexico City;
Cuba: Havana; Brazil: Brasilia; Argentina: Buenos Aires; Peru: Lima; Chile: Santiago;
Australia: Canberra; the United States: Washington
"""

CONTINENT = """
France: Europe; Germany: Europe; Italy: Europe; Spain: Europe; Portugal: Europe; England: Europe;
Ireland: Europe; Scotland: Europe; Greece: Europe; Austria: Europe; Poland: Europe; Norway: Europe;
Sweden: Europe; Finland: Europe; Denmark: Europe; Hungary: Europe; Belgium: Europe;
Ukraine: Europe; Romania: Europe; Iceland: Europe; Switzerland: Europe; the Netherlands: Europe;
Japan: Asia; China: Asia; India: Asia; Thailand: Asia; Vietnam: Asia; Iran: Asia; Iraq: Asia;
Egypt: Africa; Kenya: Africa; Morocco: Africa; Ghana: Africa; Canada: North America;
Mexico: North America; Cuba: North America; the United States: North America;
Brazil: South America; Argentina: South America; Peru: South America; Chile: South America
"""

LANGUAGE = """
France: French; Germany: German; Italy: Italian; Spain: Spanish; Portugal: Portuguese;
England: English; Greece: Greek; Poland: Polish; Russia: Russian; Japan: Japanese;
China: Chinese / Mandarin; Egypt: Arabic; Mexico: Spanish; Brazil: Portuguese; Argentina: Spanish;
Sweden: Swedish; Denmark: Danish; Hungary: Hungarian; Austria: German; Australia: English;
the United States: English; Turkey: Turkish; Cuba: Spanish
"""

OPPOSITE = """
hot: cold / cool; cold: hot / warm; big: small / little; small: big / large; up: down; down: up;
day: night; night: day; black: white; white: black; wet: dry; dry: wet; fast: slow; slow: fast;
happy: sad / unhappy; sad: happy; good: bad / evil; bad: good; open: closed / shut / close;
closed: open; full: empty / hungry; empty: full; hard: soft / easy; soft: hard / loud; high: low;
low: high; long: short; tall: short / small; heavy: light; thick: thin; thin: thick / fat;
wide: narrow; narrow: wide / broad; near: far; far: near / close; left: right; true: false;
false: true; yes: no; no: yes; in: out; out: in; on: off; off: on; push: pull; pull: push;
love: hate; hate: love; win: lose; lose: win / find; buy: sell; sell: buy; first: last;
last: first; north: south; south: north; east: west; west: east; rich: poor; poor: rich;
strong: weak; weak: strong; clean: dirty; dirty: clean; loud: quiet / soft; quiet: loud / noisy;
early: late; late: early; front: back / rear; top: bottom; bottom: top; inside: outside;
outside: inside; alive: dead; dead: alive; deep: shallow; shallow: deep; asleep: awake;
awake: asleep; cheap: expensive / dear; expensive: cheap; rough: smooth / gentle;
smooth: rough / bumpy; always: never; never: always; many: few; young: old; new: old;
friend: enemy; enemy: friend; safe: dangerous / unsafe; ugly: beautiful / pretty; remember: forget;
forget: remember; give: take / receive; dark: light / bright
"""

COLOUR = """
snow: white; grass: green; blood: red; the sky: blue; a banana: yellow / green; coal: black;
milk: white; a lemon: yellow; a carrot: orange; a tomato: red / green; a strawberry: red;
a pea: green; salt: white; a crow: black; a polar bear: white; a flamingo: pink; chocolate: brown;
a cucumber: green; spinach: green; an elephant: grey / gray; a sunflower: yellow; a leaf: green;
a ruby: red; an emerald: green; a plum: purple; a blueberry: blue; broccoli: green; a lime: green;
a raven: black; a raspberry: red; a pumpkin: orange; the sea: blue; butter: yellow; flour: white;
soot: black; ketchup: red; mustard: yellow; cocoa: brown; lettuce: green
"""

SOUND = """
a cow: moo; a dog: woof / bark; a cat: meow / miaow; a sheep: baa / bleat; a duck: quack;
a pig: oink; a horse: neigh / whinny; a lion: roar; a bee: buzz; a snake: hiss; an owl: hoot;
a frog: croak / ribbit; a mouse: squeak; a wolf: howl; a crow: caw; a hen: cluck;
a bird: tweet / chirp
"""

BABY = """
a cow: a calf; a dog: a puppy / pup; a cat: a kitten; a sheep: a lamb; a horse: a foal;
a pig: a piglet; a duck: a duckling; a hen: a chick; a lion: a cub; a bear: a cub; a tiger: a cub;
a goat: a kid; a deer: a fawn; a frog: a tadpole; a kangaroo: a joey; a swan: a cygnet;
a goose: a gosling; an elephant: a calf; a whale: a calf; a wolf: a pup / cub / puppy;
a seal: a pup; an owl: an owlet; an eagle: an eaglet; a butterfly: a caterpillar
"""

GROWN = """
a calf: a cow; a puppy: a dog; a kitten: a cat; a lamb: a sheep; a foal: a horse; a piglet: a pig;
a duckling: a duck; a chick: a hen / chicken / bird; a fawn: a deer; a tadpole: a frog / toad;
a joey: a kangaroo; a cygnet: a swan; a gosling: a goose; an owlet: an owl; an eaglet: an eagle;
a caterpillar: a butterfly / moth
"""

HOME = """
a bird: a nest; a bee: a hive; a horse: a stable; a rabbit: a burrow; a spider: a web;
a pig: a sty; a cow: a barn; a hen: a coop; a bear: a den / cave; a fish: water / the sea;
a camel: the desert; a whale: the sea / ocean / water; a shark: the sea / ocean / water;
a dolphin: the sea / ocean / water; an ant: an anthill; a monkey: the jungle / forest / trees;
a frog: a pond / water; a fox: a den / burrow; a dog: a kennel / house; a squirrel: a tree / forest
"""

LEGS = """
a cow: four; a dog: four; a cat: four; a horse: four; a sheep: four; a pig: four; a lion: four;
an elephant: four; a mouse: four; a frog: four; a bear: four; a rabbit: four; a bird: two;
a hen: two; a duck: two; an owl: two; a penguin: two; a person: two; a spider: eight; an ant: six;
a bee: six; a fly: six; a butterfly: six; a beetle: six; a snake: no; a fish: no; a worm: no;
a whale: no
"""

FOOD = """
a cow: grass / hay; a sheep: grass / hay; a panda: bamboo; a koala: leaves;
a squirrel: nuts / seeds; a monkey: fruit / bananas; a lion: meat; a tiger: meat; a wolf: meat;
a spider: insects / flies; a frog: insects / flies; an owl: mice; a giraffe: leaves;
a penguin: fish; a seal: fish; a dolphin: fish; a rabbit: grass / hay / carrots;
a horse: hay / grass; a caterpillar: leaves; a hen: grain / seeds / corn;
a mouse: seeds / grain / cheese; a cat: meat / mice / fish
"""

GIVES = """
wool: a sheep; milk: a cow / goat; honey: a bee; silk: a silkworm; pork: a pig; beef: a cow;
bacon: a pig; ham: a pig
"""

MATERIAL = """
a window: glass; a mirror: glass; a book: paper; a newspaper: paper; a tyre: rubber; a candle: wax;
a coin: metal; a sweater: wool; a shoe: leather; bread: flour / wheat; cheese: milk;
butter: milk / cream; wine: grapes; juice: fruit; glass: sand; ice: water; paper: wood / trees;
a brick: clay; a pot: clay / metal; flour: wheat / grain; a snowman: snow; a shirt: cotton / cloth;
a table: wood; a log: wood; a nail: iron / steel / metal; ketchup: tomatoes; jam: fruit;
a balloon: rubber; a bell: metal / bronze; chocolate: cocoa
"""

CATEGORY = """
an apple: a fruit; a pear: a fruit; a plum: a fruit; a peach: a fruit; a cherry: a fruit;
a mango: a fruit; a carrot: a vegetable; an onion: a vegetable; a cabbage: a vegetable;
a potato: a vegetable; a turnip: a vegetable; a rose: a flower; a tulip: a flower;
a daisy: a flower; a lily: a flower; an oak: a tree; a pine: a tree; a birch: a tree;
a willow: a tree; an eagle: a bird; a sparrow: a bird; a robin: a bird; a parrot: a bird;
a pigeon: a bird; a salmon: a fish; a trout: a fish; a shark: a fish; a tuna: a fish;
an ant: an insect; a beetle: an insect; a fly: an insect; a wasp: an insect; a snake: a reptile;
a lizard: a reptile; a crocodile: a reptile; a whale: a mammal; a dolphin: a mammal;
a bat: a mammal; a piano: an instrument; a violin: an instrument; a flute: an instrument;
a guitar: an instrument; a drum: an instrument; a hammer: a tool; a saw: a tool;
a screwdriver: a tool; a car: a vehicle; a bus: a vehicle; a truck: a vehicle; iron: a metal;
gold: a metal; copper: a metal; silver: a metal; Mars: a planet; Venus: a planet; Saturn: a planet;
tea: a drink; coffee: a drink; lemonade: a drink; red: a colour / color; blue: a colour / color;
tennis: a sport / game; football: a sport / game; chess: a game; a triangle: a shape;
a circle: a shape; Monday: a day; May: a month; winter: a season; French: a language;
a dog: an animal / mammal; a cat: an animal / mammal; a horse: an animal / mammal;
a cow: an animal / mammal; a lion: an animal / mammal / cat; the Sun: a star; the Earth: a planet
"""

# Something of each category; what else would be right is in the other tables.
EXAMPLE = """
a fruit: an apple; a vegetable: a carrot; a flower: a rose; a tree: an oak; a bird: an eagle;
a fish: a salmon; an insect: an ant; a reptile: a snake; a mammal: a whale; an instrument: a piano;
a tool: a hammer; a vehicle: a car; a metal: gold; a planet: Mars; a drink: tea; a colour: red;
a sport: tennis; a game: chess; a shape: a circle; a day: Monday; a month: May; a season: winter;
a language: French; an animal: a dog; a country: France; a city: Paris
"""

PLACE = """
borrow books: a library; buy bread: a bakery / shop; catch a train: a station;
catch a plane: an airport; buy medicine: a pharmacy / chemist; see wild animals: a zoo;
watch a film: a cinema; cook dinner: a kitchen; wash hands: a bathroom / sink; keep money: a bank;
post a letter: a post office; see old paintings: a museum; park a car: a garage;
see a play: a theatre / theater; learn to read: a school; bake a cake: an oven / kitchen;
sleep at night: a bed / bedroom; grow flowers: a garden; milk a cow: a farm / barn;
buy fruit: a market / shop
"""

USE = """
a knife: cutting / cut; a fork: eating / eat; a pen: writing / write; a saw: cutting wood;
a hammer: hitting nails / nails; a broom: sweeping / sweep; an umbrella: keeping dry / rain / dry;
a key: opening locks / open / opening / doors; a clock: telling the time / time;
a bed: sleeping / sleep; an oven: baking / bake / cooking; soap: washing / wash / cleaning;
a towel: drying / dry; a needle: sewing / sew; a comb: combing hair / hair;
a shovel: digging / dig; a ladder: climbing / climb; a lamp: giving light / light;
a camera: taking pictures / pictures / photos; a telephone: calling people / talking / call;
a cup: drinking / drink; a kettle: boiling water / water;
a thermometer: measuring heat / temperature; a ruler: measuring length / measuring / measure;
a map: finding the way / way; a fridge: keeping food cold / cold; an axe: chopping wood / wood;
a bag: carrying things / carrying / carry; a chair: sitting / sit; a pan: cooking / frying / cook
"""

# The verb is split off, so that "bakes bread" and "bake bread" need no grammar in the wordings.
JOB = """
a baker: bakes bread / bread; a teacher: teaches children / teaches / teach;
a doctor: helps sick people / sick; a farmer: grows food / food / farm;
a pilot: flies planes / planes; a sailor: sails ships / ships; a cook: cooks meals / cooks / food;
a painter: paints pictures / paints; a writer: writes books / writes;
a singer: sings songs / sings; a dentist: looks after teeth / teeth;
a firefighter: puts out fires / fires; a postman: brings letters / letters;
a tailor: makes clothes / clothes; a butcher: sells meat / meat; a plumber: fixes pipes / pipes;
a barber: cuts hair / hair; a fisherman: catches fish / fish; a vet: helps sick animals / animals;
a builder: builds houses / builds; a miner: digs for coal / coal;
a carpenter: works with wood / wood; a gardener: grows plants / plants / garden;
a librarian: looks after books / books
"""

HOW_MANY = """
days in a week: seven / 7; months in a year: twelve / 12; hours in a day: 24 / twenty-four;
minutes in an hour: 60 / sixty; seconds in a minute: 60 / sixty; days in a year: 365;
weeks in a year: 52 / fifty-two; seasons in a year: four / 4;
letters in the alphabet: 26 / twenty-six; fingers on a hand: five / 5; toes on a foot: five / 5;
wheels on a bicycle: two / 2; wheels on a car: four / 4; wheels on a tricycle: three / 3;
years in a century: 100 / hundred; years in a decade: ten / 10;
metres in a kilometre: 1000 / thousand; eggs in a dozen: twelve / 12;
planets in the solar system: eight / 8; continents on Earth: seven / 7;
colours in the rainbow: seven / 7; strings on a violin: four / 4; strings on a guitar: six / 6;
players in a football team: eleven / 11; days in April: 30 / thirty; days in May: 31 / thirty-one;
days in June: 30 / thirty; days in July: 31 / thirty-one; days in January: 31 / thirty-one;
minutes in half an hour: 30 / thirty
"""

SIDES = """
a triangle: three / 3; a square: four / 4; a rectangle: four / 4; a pentagon: five / 5;
a hexagon: six / 6; an octagon: eight / 8
"""

BODY = """
see: eyes; hear: ears; smell: nose; taste: tongue / mouth; walk: legs / feet; think: brain / head;
chew: teeth / mouth; breathe: lungs / nose; hold things: hands; kick a ball: feet / foot / legs;
speak: mouth / tongue
"""

NEXT = """
Monday: Tuesday; Tuesday: Wednesday; Wednesday: Thursday; Thursday: Friday; Friday: Saturday;
Saturday: Sunday; Sunday: Monday; January: February; February: March; March: April; April: May;
May: June; June: July; July: August; August: September; September: October; October: November;
November: December; December: January; spring: summer; summer: autumn / fall; autumn: winter;
winter: spring
"""

RECORD = """
the largest planet: Jupiter; the largest ocean: the Pacific Ocean / Pacific;
the highest mountain: Mount Everest / Everest; the largest animal: the blue whale / whale;
the largest land animal: the elephant; the tallest animal: the giraffe;
the fastest land animal: the cheetah; the largest bird: the ostrich; the largest country: Russia;
the largest continent: Asia; the smallest continent: Australia; the coldest season: winter;
the hottest season: summer; the shortest month: February; the first month of the year: January;
the last month of the year: December; the first letter of the alphabet: A;
the last letter of the alphabet: Z; the planet that we live on: Earth / the Earth;
the closest star to the Earth: the Sun; the planet closest to the Sun: Mercury;
the king of the animals: the lion; the first person on the Moon: Neil Armstrong / Armstrong;
the smallest planet: Mercury
"""

WARMTH = """
the Sun: hot / warm; fire: hot / warm; lava: hot; steam: hot; an oven: hot / warm; a desert: hot;
a volcano: hot; summer: hot / warm; boiling water: hot; ice: cold; snow: cold; winter: cold;
an iceberg: cold; a fridge: cold; the North Pole: cold; ice cream: cold; a snowman: cold
"""

TASTE = """
sugar: sweet; honey: sweet; candy: sweet; jam: sweet; a cake: sweet; syrup: sweet; a pear: sweet;
a lemon: sour; vinegar: sour; a lime: sour; salt: salty; sea water: salty; coffee: bitter
"""

SPEED = """
a cheetah: fast; a rocket: fast; a plane: fast; a train: fast; a racing car: fast; light: fast;
a horse: fast; an eagle: fast; a turtle: slow; a tortoise: slow; a worm: slow; a caterpillar: slow
"""

# Things in order of size; only those on different lines are compared, so that no pair is in doubt.
SIZES = """
a grain of sand
an ant; a flea
a pea; a bee; a fly
a grape; a coin; a cherry
a mouse; an egg
an apple; a rat
a rabbit; a football; a hen
a dog; a chair
a sheep; a person
a cow; a horse; a camel
an elephant
a bus; a whale
a house; a castle
a mountain
the Moon
the Earth
the Sun
"""


@dataclass(frozen=True, eq=False)
class Fact:
    """One fact: `relation` says which wordings ask for it (wordings.RELATIONS)."""

    relation: str
    x: str
    y: str
    accept: tuple[str, ...]


def bare(phrase: str) -> str:
    """The phrase without its article.

    >>> bare("a cow"), bare("the sea"), bare("snow")
    ('cow', 'sea', 'snow')
    """
    for article in ("a ", "an ", "the "):
        if phrase.startswith(article):
            return phrase[len(article) :]
    return phrase


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def entries(table: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """(key, value, all right answers) of a table above."""
    out = []
    for entry in table.replace("\n", " ").split(";"):
        if entry.strip():
            key, values = entry.split(":")
            first, *others = (value.strip() for value in values.split("/"))
            right: tuple[str, ...] = (bare(first), *map(bare, others))
            out.append((key.strip(), first, right))
    return out


# Other right answers to a fact read backwards.
ALSO = {
    "roar": ("tiger", "bear"),
    "howl": ("dog",),
    "buzz": ("fly", "wasp"),
    "hiss": ("cat", "goose"),
    "baa": ("lamb", "goat"),
    "London": ("United Kingdom", "UK", "Britain"),
    "helps sick people": ("nurse",),
    "catches fish": ("fisher",),
    "brings letters": ("mailman",),
    "winter": ("fall",),
}


def swapped(table: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """The table read from right to left: who bakes bread."""
    return [(value, key, (bare(key), *ALSO.get(value, ()))) for key, value, _ in entries(table)]


KINDS_OF_ANIMAL = ("bird", "fish", "insect", "reptile", "mammal")


def categories() -> list[tuple[str, str, tuple[str, ...]]]:
    """CATEGORY; a bird is an animal, too."""
    return [
        (x, y, (*right, "animal") if right[0] in KINDS_OF_ANIMAL else right)
        for x, y, right in entries(CATEGORY)
    ]


def examples() -> list[tuple[str, str, tuple[str, ...]]]:
    """EXAMPLE, with everything else that the tables have of each category."""
    found: dict[str, list[str]] = {}
    for x, _, right in categories():
        for category in right:
            found.setdefault(category, []).append(bare(x))
    found["animal"] += [bare(x) for x, _, _ in entries(SOUND) + entries(BABY) + entries(FOOD)]
    found["country"] = [bare(x) for x, _, _ in entries(CAPITAL)]
    found["city"] = [y for _, y, _ in entries(CAPITAL)]
    found["language"] += [y for _, y, _ in entries(LANGUAGE)]
    found["colour"] += [y for _, y, _ in entries(COLOUR)]
    days_and_months = [x for x, _, _ in entries(NEXT)]
    found["day"] += [x for x in days_and_months if x.endswith("day")]
    found["season"] += [x for x in days_and_months if x.islower()]
    found["month"] += [x for x in days_and_months if x[0].isupper() and not x.endswith("day")]
    return [(x, y, (*right, *found[bare(x)])) for x, y, right in entries(EXAMPLE)]


DIGITS = {"no": "0", "two": "2", "four": "4", "six": "6", "eight": "8"}


@cache
def all_facts() -> tuple[Fact, ...]:
    """Every fact that can be asked for."""
    tables = {
        "capital": entries(CAPITAL),
        "capital_of": [e for e in swapped(CAPITAL) if e[0] != "Mexico City"],
        "continent": entries(CONTINENT),
        "language": entries(LANGUAGE),
        "opposite": entries(OPPOSITE),
        "colour": entries(COLOUR),
        "sound": entries(SOUND),
        "sound_of": swapped(SOUND),
        "baby": entries(BABY),
        "grown": entries(GROWN),
        "home": entries(HOME),
        "legs": [
            (x, y, (*a, DIGITS[y], *(("zero", "none", "any legs") if y == "no" else ())))
            for x, y, a in entries(LEGS)
        ],
        "food": entries(FOOD),
        "gives": entries(GIVES),
        "material": entries(MATERIAL),
        "category": categories(),
        "example": examples(),
        "place": entries(PLACE),
        "use": entries(USE),
        "job": entries(JOB),
        "job_of": swapped(JOB),
        "how_many": entries(HOW_MANY),
        "sides": entries(SIDES),
        "body": entries(BODY),
        "next": entries(NEXT),
        "previous": swapped(NEXT),
        "record": entries(RECORD),
        "warmth": entries(WARMTH),
        "taste": entries(TASTE),
        "speed": entries(SPEED),
    }
    return tuple(Fact(name, *entry) for name, rows in tables.items() for entry in rows)


@cache
def sizes() -> tuple[tuple[str, int], ...]:
    """(thing, rank): a higher rank is a bigger thing."""
    lines = [line for line in SIZES.split("\n") if line]
    return tuple((thing.strip(), i) for i, line in enumerate(lines) for thing in line.split(";"))
