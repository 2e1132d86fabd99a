"""Values of slots: lists, and numbers, times and dates that are generated."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from labelgen.simulation.splits import in_split


class Value(NamedTuple):
    """A value as the user words it, and as the backend stores it."""

    words: str
    normalised: str


def sample_value(slot: str, rng: random.Random, split: str) -> Value:
    """A random value of a slot: from the part of its list that the split may use, or generated."""
    if slot in VALUES:
        words = rng.choice(in_split(VALUES[slot], split))
        return Value(words, words)
    return _GENERATORS[slot](rng)


def _time(rng: random.Random) -> Value:
    hour, minute = rng.randrange(24), rng.choice((0, 0, 0, 15, 30, 30, 45, rng.randrange(60)))
    half, twelve = ("am", "pm")[hour >= 12], hour % 12 or 12
    wordings = [f"{twelve}:{minute:02d} {half}", f"{twelve}:{minute:02d}{half}", f"{hour}:{minute:02d}"]
    if minute == 0:
        part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
        wordings = [f"{twelve} {half}", f"{twelve}{half}", f"{_NUMBERS[twelve]} {half}", f"{_NUMBERS[twelve]} {part}", wordings[0]]
    elif minute in (15, 30, 45):
        quarters = {
            15: f"quarter past {_NUMBERS[twelve]}",
            30: f"half past {_NUMBERS[twelve]}",
            45: f"quarter to {_NUMBERS[twelve % 12 + 1]}",
        }
        wordings += [quarters[minute], f"{_NUMBERS[twelve]} {_NUMBERS[minute]}"]
    return Value(rng.choice(wordings), f"{hour:02d}:{minute:02d}")


def _date(rng: random.Random) -> Value:
    kind, day = rng.random(), rng.randrange(1, 29)
    if kind < 0.35:
        words = rng.choice(("today", "tomorrow", "tonight", "this weekend", "next week", "the day after tomorrow", "tomorrow morning"))
        return Value(words, words)
    if kind < 0.7:
        words = rng.choice(("", "", "this ", "next ")) + rng.choice(_DAYS)
        return Value(words, words.lower())
    ordinal = f"{day}{'th' if 4 <= day <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
    month = rng.choice(_MONTHS)
    words = rng.choice((f"{month} {ordinal}", f"the {ordinal} of {month}", f"{month} {day}", f"{day} {month}"))
    return Value(words, f"{_MONTHS.index(month) + 1:02d}-{day:02d}")


def _quantity(rng: random.Random, low: int, high: int, units: Sequence[str]) -> Value:
    """A number in [low, high), in words or digits, with one of the units."""
    number = rng.randrange(low, high)
    words = _NUMBERS[number] if number in _NUMBERS and rng.random() < 0.5 else str(number)
    unit = rng.choice(units)
    if number == 1:
        unit = unit.removesuffix("s")
    return Value(words + unit, f"{number}{unit}")


_NUMBERS = {
    1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven",
    12: "twelve", 13: "thirteen", 14: "fourteen", 15: "fifteen", 17: "seventeen", 20: "twenty", 30: "thirty", 40: "forty",
    45: "forty five", 50: "fifty",
}  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_GENERATORS: dict[str, Callable[[random.Random], Value]] = {
    "time": _time,
    "date": _date,
    "duration": lambda rng: _quantity(rng, 1, 60, (" minutes", " minutes", " seconds", " hours")),
    "degrees": lambda rng: _quantity(rng, 5, 31, (" degrees", "°C", "")),
    "nights": lambda rng: _quantity(rng, 1, 10, (" nights",)),
    "party_size": lambda rng: _quantity(rng, 2, 11, ("", "", " people", " guests")),
    "quantity": lambda rng: _quantity(rng, 2, 13, ("", "", "", " packs")),
}

# Tables: many short strings per line.
# fmt: off

_CITIES = (
    "Paris", "Boston", "Austin", "London", "Oslo", "São Paulo", "Zürich", "San Francisco", "Lagos", "Tokyo", "Chicago", "Denver", "Mumbai",
    "New York", "Cape Town", "Berlin", "Seattle", "Malmö", "Toronto", "Lisbon", "Melbourne", "Santa Fe", "Vienna", "Portland", "Reykjavík",
    "Nairobi", "Atlanta", "Kraków", "Hong Kong", "Salt Lake City", "Dublin", "Phoenix",
)

VALUES: dict[str, tuple[str, ...]] = {
    "city": _CITIES,
    "origin": _CITIES,
    "destination": _CITIES,
    "song": (
        "Silver Morning", "Run to the Coast", "Paper Moon Parade", "Hold the Line Down", "Blue Kitchen", "After the Rain", "Déjà Blue",
        "Nine Lives Left", "Golden Hour Street", "Slow Train Home", "Never Say Sunday", "Wildflower", "Little Machine",
        "Dancing in October", "Glass River", "Hey Marianne", "Midnight in Malmö", "The Long Way", "Seven Sisters", "Satellite Heart",
        "Fading Out", "Lemonade Days", "Cold Water", "One More Mile", "Ocean Eyes Wide",
    ),
    "artist": (
        "The Night Porters", "Ana Solé", "Grey Harbour", "DJ Kestrel", "Maya Lindqvist", "The Velvet Owls", "Tom Akande", "Little Comet",
        "Sister Juniper", "Los Faros", "Iris & the Tide", "Kid Lantern", "Paula Winters", "Novembers", "Ravi Menon", "Café Orkester",
        "Big Sky Brothers", "Hanna Vale", "Stone Garden", "Bright Ada",
    ),
    "genre": ("jazz", "classical", "hip hop", "rock", "soul", "country", "lo-fi", "techno", "reggae", "blues", "folk", "metal",
              "bossa nova", "disco", "ambient", "salsa", "indie pop", "gospel", "punk", "k-pop"),
    "level": ("three", "five", "ten", "seven", "two", "40 percent", "60 percent", "8", "maximum", "minimum", "half", "one", "25 percent",
              "90 percent", "six"),
    "restaurant": (
        "Blue Fig", "Casa Lupo", "The Copper Pot", "Golden Wok", "Chez Amélie", "Nonna Rosa", "Saffron House", "Green Lantern", "El Toro",
        "Sushi Kaze", "The Hungry Fox", "Olive & Thyme", "Taj Garden", "Harbor Grill", "Pho Station", "La Petite Cour", "Smoke & Oak",
        "Zaatar", "The Red Door", "Mama Chen", "Bistro Nord", "Taco Luna", "Fork and Barrel", "Kimchi Corner", "Old Mill Tavern",
    ),
    "cuisine": ("italian", "thai", "indian", "mexican", "french", "japanese", "greek", "vietnamese", "korean", "ethiopian", "lebanese",
                "chinese", "spanish", "turkish", "vegan", "peruvian", "moroccan", "american", "seafood", "persian"),
    "airline": ("Northwind", "AeroSol", "Skyline Air", "Blue Crane", "Fjord Airways", "Pacific Wing", "TransAlba", "Meridian", "Sunbird",
                "Polar Jet"),
    "hotel": (
        "Hotel Aurora", "The Grand Elm", "Seaview Inn", "Casa Blanca Suites", "Park Lodge", "Hôtel du Pont", "The Lantern",
        "Riverside Plaza", "Old Town Rooms", "Station Hotel", "Maple House", "The Mariner", "Royal Garden", "Villa Sol", "City Nest",
    ),
    "place": (
        "the airport", "the train station", "work", "the office", "central station", "the mall", "my mom's house", "the stadium",
        "city hall", "the hospital", "the university", "pier 12", "the gym", "the museum", "main street", "the convention center",
        "the harbor", "grandma's", "the opera", "union square",
    ),
    "room": ("kitchen", "living room", "bedroom", "bathroom", "garage", "hallway", "office", "basement", "kids room", "dining room",
             "attic", "guest room", "patio", "den", "nursery"),
    "color": ("red", "blue", "warm white", "green", "purple", "orange", "pink", "yellow", "cool white", "turquoise", "violet", "amber",
              "soft gold", "teal", "lilac"),
    "door": ("front door", "back door", "garage door", "side door", "balcony door", "gate", "patio door", "cellar door", "main entrance",
             "shed"),
    "task": (
        "call mom", "water the plants", "take out the trash", "pay the rent", "pick up the kids", "feed the cat", "buy a birthday card",
        "send the report", "take my pills", "walk the dog", "email Priya", "renew my passport", "clean the oven", "book the dentist",
        "return the library books", "charge the car", "text Jonas", "do the laundry", "move the car", "stretch", "check the mail",
        "order new glasses", "back up my phone", "visit aunt Zoë", "fix the bike",
    ),
    "item": (
        "milk", "eggs", "paper towels", "coffee", "bananas", "dog food", "batteries", "olive oil", "bread", "shampoo", "rice",
        "light bulbs", "tomatoes", "cheese", "orange juice", "pasta", "running shoes", "trash bags", "oat milk", "crème fraîche", "chicken",
        "printer ink", "toothpaste", "apples", "a phone charger", "blankets", "jalapeños", "green tea", "headphones", "butter",
    ),
    "store": ("Fresh Basket", "MegaMart", "Corner Shop", "Green Grocer", "Homewell", "Daily Goods", "Shop & Save", "Nordmarkt", "QuickCart",
              "Bargain Barn"),
}
