"""Plain lists: people, things, words to spell, and what lies outside the small world."""

from __future__ import annotations

from functools import cache

from nanochat.data.tinyworld.facts import all_facts, bare, listed
from nanochat.data.tinyworld.rng import Rng

GIRLS = listed(
    """
    Anna Mia Lily Emma Sara Nora Julia Ella Clara Lucy Rosa Hanna Ida Maya Zoe Alice Eva Lena Ruth
    Kate Nina Tina Betty Jane Olga
    """
)
BOYS = listed(
    """
    Tom Ben Max Sam Leo Paul Jack Tim Noah Finn Oscar Peter Adam Karl Nick Hugo Felix Dan Luke
    Mark Theo Rob Jim Omar Ivan
    """
)
# People who talk to it; the two lists above are those of the stories, too.
OTHER_NAMES = listed(
    """
    John Mary David Linda James Susan Robert Karen Michael Lisa William Sarah Thomas Laura Daniel
    Maria George Helen Kevin Julie Brian Diana Eric Amy Chris Rachel Alex Sophie Andrew Emily Ryan
    Grace Henry Chloe Charlie Olivia Harry Isabel Mike Steve Bob Bill Joe Dave Pat Mohammed Ali
    Fatima Wei Yuki Raj Priya Carlos Sofia Ivy Hannah Nathan Dylan Jacob Simon
    """
)
PETS = listed(
    """
    Rex Spot Luna Fluffy Bella Rocky Daisy Socks Pepper Ginger Misty Coco
    """
)

SPELLED = listed(
    """
    cat dog cow pig hen sun moon star tree bird fish milk bread apple house mouse horse sheep snow
    rain green white black brown water door book school chair table train ship boat king queen
    gold plant seed leaf friend baby child hand foot head nose mouth ear eye arm leg shoe coat hat
    shirt sock bed lamp key spoon fork knife cup plate pan pot soup cake rice egg meat sugar grape
    bear wolf fox lion goose frog snake bee ant fly day night year summer winter car bus bike road
    city farm sea lake island wind ice fire light happy sad fast slow big small long short hot
    cold new old good bad red blue pink one two three four five six seven eight music song dance
    ball game doll paper
    """
)

COUNTED = listed(
    """
    strawberry raspberry blueberry blackberry banana mississippi balloon butterfly coffee letter
    pepper puppy bottle butter hammer rabbit kitten summer dinner supper pillow yellow mirror
    carrot cherry chocolate cucumber potato tomato elephant alligator crocodile kangaroo giraffe
    monkey penguin dolphin umbrella telephone computer keyboard window kitchen bathroom bedroom
    teacher doctor farmer baker sailor painter singer writer gardener carpenter engineer mountain
    river valley forest island desert ocean volcano planet rocket spaceship airplane bicycle
    tricycle motorcycle helicopter submarine sandwich pancake cookie biscuit noodle spaghetti
    macaroni cheese tennis football baseball basketball hockey soccer swimming running reading
    writing singing dancing laughing sleeping address success process business access little
    middle simple people purple circle triangle square hexagon rectangle number hundred thousand
    million sentence question answer alphabet grammar language dictionary library museum hospital
    airport station bakery pharmacy market restaurant theatre cinema castle palace temple church
    garden flower blossom tulip daisy sunflower lavender cabbage lettuce spinach broccoli onion
    garlic ginger cinnamon vanilla sugar syrup honey jelly peanut walnut almond hazelnut pineapple
    coconut papaya apricot melon watermelon pumpkin mushroom asparagus artificial intelligence
    machine learning program science history geography mathematics physics chemistry biology
    tomorrow yesterday morning evening afternoon midnight weekend holiday birthday
          wonderful beautiful terrible horrible
    incredible impossible necessary different important interesting excellent brilliant parallel
    committee bookkeeper tattoo raccoon moose goose balloonist bubble rubber ribbon robber hobby
    lobby jazz pizza puzzle buzz fuzzy dizzy lizard wizard
    """
)

THINGS = listed(
    """
    apples eggs books coins cups balls nuts pens cards shells stones buttons keys pears cookies
    toys stamps flowers cats dogs sweets
    """
)

# Countries, cities, words, animals and things that exist but are not in the table of facts.
# The second part of each list (after the bar) is only for the held-out questions.
COUNTRIES = (
    "Albania Serbia Croatia Slovenia Slovakia Estonia Latvia Lithuania Belarus Moldova Malta "
    "Cyprus Georgia Armenia Azerbaijan Kazakhstan Mongolia Nepal Bhutan Bangladesh Pakistan "
    "Afghanistan Myanmar Laos Cambodia Malaysia Singapore Indonesia Taiwan Jordan Lebanon Syria "
    "Israel Kuwait Qatar Oman Yemen Algeria Tunisia Libya Sudan Ethiopia Somalia Uganda Rwanda "
    "Tanzania Zambia Botswana Namibia Angola Gabon Cameroon Nigeria Togo Benin Mali Senegal "
    "Gambia Guinea Liberia Jamaica Haiti Panama Honduras Guatemala Paraguay Colombia Ecuador "
    "Fiji Samoa Tonga Narnia Mordor Gondor Wonderland Atlantis Monaco Andorra "
    "| Bulgaria Luxembourg Uzbekistan Tajikistan Zimbabwe Mozambique Madagascar Nicaragua Bolivia "
    "Uruguay Venezuela Belize Vanuatu Bahrain Eritrea Malawi Lesotho Mauritius Barbados Wakanda"
)
CITIES = (
    "Belgrade Zagreb Tallinn Riga Vilnius Minsk Tbilisi Yerevan Baku Kathmandu Dhaka Islamabad "
    "Kabul Phnom Vientiane Jakarta Manila Amman Beirut Damascus Doha Muscat Algiers Tunis Tripoli "
    "Khartoum Kampala Kigali Lusaka Gaborone Luanda Dakar Abuja Bogota Quito Montevideo Kingston "
    "Chicago Hamburg Milan Barcelona Manchester Sydney Osaka Mumbai Naples Lyon "
    "| Sofia Bratislava Ljubljana Tashkent Harare Maputo Managua Caracas Suva Nicosia Toronto"
)
ODD_WORDS = (
    "music garden idea story water chair number letter picture window mountain problem reason "
    "silence justice history science culture energy system method theory opinion chance advice "
    "purple seven pencil banana teacher market island engine pocket blanket basket hammer "
    "abundant cautious reckless humble arrogant fragile sturdy vivid obscure subtle frequent "
    "scarce modern ancient guilty innocent private public absent present temporary generous "
    "stingy polite rude ordinary simple complex smart curious lazy cruel "
    "| concrete optimistic permanent transparent flexible vertical artificial voluntary diligent "
    "hostile elegant mature literal peculiar tedious brittle serene verbose"
)
ODD_ANIMALS = (
    "lemur llama alpaca badger beaver otter hedgehog hamster gorilla chimpanzee buffalo bison "
    "antelope gazelle hyena jackal leopard panther jaguar walrus porcupine raccoon skunk weasel "
    "iguana gecko chameleon newt salamander lobster shrimp jellyfish starfish squid oyster snail "
    "pelican stork heron vulture falcon hawk toucan hummingbird unicorn dragon griffin yeti "
    "| platypus armadillo wombat meerkat mongoose narwhal tapir sloth orangutan cockatoo axolotl "
    "cockroach scorpion centipede ocelot warthog"
)
ODD_THINGS = (
    "laptop spanner scarf accordion battery carburetor compass corkscrew crystal diary dishwasher "
    "drone elevator envelope escalator flagpole fountain funnel gadget generator guillotine "
    "harness hinge keyboard lantern laser lever magnet marble medal microphone microscope "
    "microwave motor nozzle parachute pedal pendulum periscope pipeline piston printer projector "
    "propeller pulley radiator radio receipt robot satellite scooter server shuttle siphon "
    "skateboard sponge statue stethoscope stapler suitcase syringe tablet tambourine tank "
    "telescope tent tractor trampoline transistor trophy tunnel turbine valve wallet wheelbarrow "
    "| xylophone barometer bassoon calculator chandelier clarinet dynamo gyroscope hovercraft "
    "metronome odometer protractor quasar sextant spectrometer theodolite treadmill zeppelin"
)
PERSONS = (
    "Albert Einstein; Isaac Newton; Marie Curie; Napoleon; Julius Caesar; Cleopatra; Mozart; "
    "Beethoven; Picasso; Madonna; Elvis Presley; Barack Obama; Abraham Lincoln; Queen Victoria; "
    "Gandhi; Nelson Mandela; Lionel Messi; Serena Williams; Usain Bolt; Harry Potter; Batman; "
    "Superman; Mickey Mouse; Sherlock Holmes; Elon Musk; Steve Jobs; Bill Gates; Taylor Swift; "
    "Michael Jackson; Charles Dickens; Jane Austen; Homer; Plato; Aristotle; Buddha; Karl Marx; "
    "my neighbour; my uncle; the mayor; the president; the prime minister; the pope "
    "| Leonardo da Vinci; Charles Darwin; Galileo; Sigmund Freud; Winston Churchill; Socrates; "
    "Frida Kahlo; Spider-Man; Cristiano Ronaldo; my cousin; the king of Spain"
)
# Whole questions that the small world has no answer to.
TOPICS = """
how do I bake a chocolate cake; how do I cook rice; give me a recipe for pizza
how long do I boil an egg; how do I make pancakes; what should I cook tonight
what is the news today; what happened in the world today; who won the election
who will win the next election; which party should I vote for; what do you think about politics
who is the president now; is the government good; what is the weather today
will it rain tomorrow; is it cold outside today; how warm is it now; what time is it
what day is it today; what is the date today; what year is it
where am I; what is my phone number; what did I eat yesterday; who is my father
I have a headache, what should I do
my stomach hurts, what can I take; which pills are good for a cold; how do I lose weight
is this mushroom safe to eat; I broke my leg, what now; how do I treat a burn
write a program that sorts a list; write some code in Python; how do I fix a bug in my code
what is a pointer in C; how do I install Linux; what is recursion; how does the internet work
how does a computer work; what is machine learning; what is a neural network
how do I get rich; which stocks should I buy; how much is a dollar in euros; what is inflation
how much money do you have; what does a house cost; how much is a litre of milk
who won the football game last night; who won the world cup; who is the best player
what is the meaning of life; is there a god; what happens when we die; do you believe in love
what is consciousness; what is quantum physics; what is a black hole; how old is the universe
what is the theory of relativity; how far is the Moon; how hot is the Sun; what is gravity
what is the speed of light; what is an atom; what is DNA; how do vaccines work
who invented the telephone; who invented the light bulb; who built the pyramids
when did the second world war end; when did the Romans live; who discovered America
what happened in 1789; when was Napoleon born; who painted the Mona Lisa; who wrote Faust
what is the population of China; how many people live in Tokyo; how high is the Eiffel Tower
how long is the Nile; how deep is the sea; what is the biggest city in the world
what is the best film; who sings this song; which book should I read; who acted in Titanic
what is the best phone; how do I get to the airport; where is the nearest shop
how do I get from London to Paris; when does the next train leave; is the shop open now
can you call my mother; send an email to my boss; set an alarm for six; play some music
turn on the light; book a flight for me; order a pizza for me; open the door for me
translate this into French; how do you say dog in Latin; what is cheese in Italian
write a poem about love; write an essay about war; write my homework; write a letter to my bank
solve this equation for x; what is the square root of two; what is pi; prove the theorem
what is the integral of x; how many stars are there; how many people are there in the world
what am I thinking; what will happen tomorrow; who will I marry; what will I be one day
how do I fix my car; why does my car make a noise; how do I change a tyre; how do I tie a tie
how do I learn to swim; how do I play the piano; what are the rules of chess
how do I find a job; how do I write a letter to a judge; is it legal to copy a film
why is the sky blue; why do we dream; why do cats purr; why is the sea salty
what did the teacher say; where are my keys; who stole my bike; who ate my lunch
do you remember me; what did I tell you yesterday; what is my password; read my email
what is the secret word; show me a picture of a cat; draw a horse; sing a song for me
can you write some code; can you draw; do you speak French; write a Python program
asdf; blah blah blah; qwerty; lorem ipsum; xyz; flim flam; what is the blorp of a snark
why are you so slow; how many parameters do you have; what is your address
how tall are you; what do you want to eat; where were you born; who is your best friend
|
how do I make tomato soup; give me a recipe for apple pie; how long does a steak need
what is in the newspaper today; who is the prime minister of Japan; who should be president
will it snow next week; how is the weather in London; what time is it in Tokyo
how old is my sister; where did I park my car
my tooth hurts, what should I do; is it bad to eat too much salt; which medicine helps me sleep
write a function in Java; how do I delete a file; what is a database; how do I center a div
should I buy gold now; how much does a car cost; what is the price of bread
who won the race yesterday; who is the best singer; which team is the best
why do people die; what is the soul; what is dark matter; how big is the universe
how does electricity work; what is a virus; who invented the computer; who built this castle
when did the first world war begin; what happened in 1945; who painted this picture
how many people live in Paris; how tall is Mount Everest; how long is the Amazon
which film should I watch; where is the nearest hotel; when does the bus come
call the police; send a message to Tom; order some shoes for me; what is bread in German
write a poem about the sea; what is the cube root of nine; what will the weather be on Friday
how do I fix a broken window; how do I learn to drive; why do birds sing; where is my phone
zzz zzz; foo bar baz; paint a picture of a ship; what did I do last summer
"""
SYLLABLES = listed(
    """
    ba be bi bo bra da de dor du fa fen fi flo ga glo gra ha hu ja ka kel ki kro la lam li lo ma
    mel mi mo na nim no ol pa per pi plo ra ren ri ro sa sel shi sto ta tel ti tra tu va vel vi wa
    wim zo zu
    """
)
ENDINGS = (*listed("n r l k s t p m x ng nd st sh ck rt"), *[""] * 8)

ANIMALS = listed(
    """
    dog cat cow horse pig sheep hen duck goose mouse rabbit fox wolf bear lion tiger elephant
    monkey frog owl bird fish bee ant snake whale dolphin penguin giraffe squirrel deer goat
    """
)


@cache
def halves(text: str, sep: str = " ") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(for training, for the held-out questions) of a list above."""
    taught, held_out = text.split("|")
    split = (lambda t: t.split()) if sep == " " else (lambda t: t.replace("\n", ";").split(";"))
    return (
        tuple(w.strip() for w in split(taught) if w.strip()),
        tuple(w.strip() for w in split(held_out) if w.strip()),
    )


def invented(rng: Rng, low: int = 2, high: int = 3) -> str:
    """A word that does not exist: for names nobody knows, and for copying any word."""
    word = "".join(rng.choice(SYLLABLES) for _ in range(rng.between(low, high)))
    return word + rng.choice(ENDINGS)


@cache
def countable_words() -> tuple[str, ...]:
    """Every word whose letters may be counted: those above, and those of the facts."""
    of_facts = {bare(text) for fact in all_facts() for text in (fact.x, fact.y)}
    words = set(SPELLED) | set(COUNTED) | set(ANIMALS) | of_facts
    return tuple(sorted(w for w in words if w.isalpha() and w.islower() and len(w) > 2))
