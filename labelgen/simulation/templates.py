"""What the simulated corpus says: intents with their phrasings, values of slots, and the words around them.

Phrasings are a small grammar: `{slot}` is a slot, `[a|b|]` is one of its alternatives (they nest; an empty one may be left out).
At every fifth place from 3 and 4 a phrasing or a value is kept from training (see `simulated.share`), so order decides what is new.
"""

from __future__ import annotations

from typing import NamedTuple

# Tables: many short strings a line.
# fmt: off


class Intent(NamedTuple):
    """One thing that users want, and how both sides speak of it."""

    name: str  # Domain/Intent
    topic: str  # how the user calls it when coming back to it
    required: tuple[str, ...]  # slots without which the assistant cannot act
    requests: tuple[str, ...]
    done: tuple[str, ...]  # the assistant reports success
    none: tuple[str, ...] = ()  # it did what it could, there is no result
    confirms: bool = False  # asks before it acts


PLEASE = "[|||can you |could you |please |i want you to |would you |hey, ]"

SKY = "[sunny|cloudy|rainy|windy|foggy|snowy|partly cloudy|stormy|clear|mild|overcast]"
PRICE = "[cheap|fancy|good|reasonable|quiet|small]"

INTENTS = (
    Intent(
        "Music/PlaySong", "song", ("song",),
        (PLEASE + "play {song}[ by {artist}||]", PLEASE + "put on {song}[| in the {room}]", "i want to hear {song}[ by {artist}|]",
         "i'm in the mood for {artist}, [play|start] {song}", "let's listen to {song}", "[play|put on] something by {artist}",
         "start {song}[| from {artist}] please", "how about some {artist}[|, maybe {song}]", PLEASE + "queue {song}[| by {artist}]",
         "could we have {song} [on|playing][ in the {room}|]"),
        ("[Now playing|Playing|Here is] {song} by {artist}.", "[OK|Sure], {song}[| by {artist}].",
         "Starting {song}[ on the {room} speaker|].", "You got it: {song}, {artist}.", "{song} by {artist}, coming up.",
         "I have put on {song}."),
        ("I could not find {song} in your library.", "{song} is not available in your country."),
    ),
    Intent(
        "Music/PlayPlaylist", "music", ("genre",),
        (PLEASE + "play [some|a bit of] {genre}[| in the {room}]", "put on [my|a|the] {genre} [playlist|mix]",
         "i feel like [hearing |]{genre}", "[shuffle|start] my {genre} playlist", "{genre} music[ please|]", "give me an hour of {genre}",
         "i'd like some background {genre}[| in the {room}]", "[got|have you got] any {genre}",
         PLEASE + "find me {genre} to [work|cook|run] to", "turn on {genre} radio"),
        ("Playing {genre}[| in the {room}].", "Here is your {genre} mix.", "[Sure|OK], some {genre} for you.", "Shuffling {genre}.",
         "{genre} it is.", "Starting a {genre} station."),
    ),
    Intent(
        "Music/SetVolume", "volume", ("level",),
        ("[turn|set] the volume [to|at] {level}", "volume {level}[ please|]", PLEASE + "make it louder, [say|like] {level}",
         "change the volume to {level}[| in the {room}]", "set the sound in the {room} to {level}",
         "[it's too loud|i can't hear it], go to {level}", PLEASE + "turn it [up|down][| to {level}]",
         "bring the volume [up|down] to {level}"),
        ("[OK|Done], volume {level}.", "The volume is [now |]at {level}.", "Set to {level}.", "Volume changed to {level}."),
    ),
    Intent(
        "Weather/GetForecast", "weather", ("city",),
        ("what's the weather [like |][in|for] {city}[ {date}||]", "[how's|how is] the weather {date}[| in {city}]",
         "weather {date}[| in {city}]", PLEASE + "give me the forecast for {city}[| {date}]",
         "[will it be|is it] [nice|warm|cold] in {city} {date}", "what will it be like in {city} {date}",
         "tell me [about |]the weather in {city}", "forecast for {date}[| in {city}]", "how [hot|cold] does it get in {city}[ {date}|]",
         "what should i wear in {city} {date}"),
        ("[It will be|Expect it to be] " + SKY + " in {city}, [with a high of|around] {degrees}.",
         "{city} will be " + SKY + "[ {date}|], {degrees}.", "The forecast for {city} is " + SKY + " with {degrees}.",
         "In {city}: " + SKY + ", up to {degrees}.", "Looks " + SKY + " in {city}[|, about {degrees}].",
         "{degrees} and " + SKY + " in {city}."),
    ),
    Intent(
        "Weather/CheckRain", "rain", ("city", "date"),
        ("[will it rain|is it going to rain] {date}[| in {city}]", "do i need an umbrella {date}[| in {city}]",
         "[any|is there] rain in {city}[| {date}]", "chance of rain in {city} {date}", "is {city} going to be dry {date}",
         "should i take a raincoat to {city}[ {date}|]", "how likely is rain {date}", "will i get wet in {city} {date}"),
        ("[Yes, it will|No, it won't] rain in {city} {date}.", "[No rain|Some rain|Showers] expected in {city} {date}.",
         "It looks " + SKY + " in {city} {date}.", "There is a small chance of rain in {city} {date}.",
         "{city} should [stay dry|be wet] {date}."),
    ),
    Intent(
        "Alarms/SetAlarm", "alarm", ("time",),
        (PLEASE + "set an alarm for {time}[ {date}||]", PLEASE + "wake me [up |]at {time}[| {date}]", "alarm [at|for] {time}[| {date}]",
         "i need to [get up|be up] at {time}[ {date}|]", "i need an alarm[ {date}|]", "don't let me sleep past {time}",
         PLEASE + "get me up {date}[| at {time}]", "new alarm[, {time}|]", "make sure i'm awake by {time} {date}",
         "[add|create] an alarm for {date}[| at {time}]"),
        ("[OK|Done], your alarm is set for {time}.", "I'll wake you at {time}[ {date}|].", "Alarm set for {time}[| {date}].",
         "{time}[| {date}], got it.", "Your {time} alarm is on.", "All set, I will ring at {time}."),
    ),
    Intent(
        "Alarms/CancelAlarm", "alarm to cancel", ("time",),
        (PLEASE + "[cancel|delete|remove] my {time} alarm", PLEASE + "turn off the alarm [for|at] {time}",
         "i don't need the alarm[ at {time}|] anymore", "no alarm at {time}[| {date}]", "[drop|kill] the {time} alarm",
         "[cancel|delete] an alarm[| for me]", "skip my {time} wake-up {date}"),
        ("[OK|Done], the {time} alarm is [off|gone].", "I cancelled your alarm for {time}.", "Your {time} alarm has been removed.",
         "Alarm at {time} deleted.", "No more alarm at {time}."),
        ("You have no alarm at {time}.", "There is no alarm set for {time}."),
    ),
    Intent(
        "Alarms/SetTimer", "timer", ("duration",),
        (PLEASE + "set a timer for {duration}", "{duration} timer[ please|]", PLEASE + "start a {duration} timer[ for the {item}|]",
         "count down {duration}", "[i need|give me] a timer[| for the {item}]", "remind me in {duration} to check the {item}",
         "timer, {duration}", "tell me when {duration} [are|have] [over|passed]"),
        ("{duration}, starting now.", "[OK|Sure], timer set for {duration}.", "Your timer [is running|has started]: {duration}.",
         "Counting down {duration}.", "I'll tell you in {duration}."),
    ),
    Intent(
        "Restaurants/FindRestaurant", "place to eat", ("cuisine", "city"),
        (PLEASE + "find [me |]a " + PRICE + " {cuisine} [place|restaurant] in {city}",
         "where can i [eat|get] {cuisine}[ food|][ in {city}||]", "i'm [hungry|craving {cuisine}][|, what's good in {city}]",
         "[any|are there] good {cuisine} restaurants in {city}", "i'd like to eat {cuisine}[| in {city}]",
         PLEASE + "recommend a {cuisine} restaurant[ in {city}|]", "find somewhere to eat in {city}",
         "looking for " + PRICE + " {cuisine} food",
         "what are the best {cuisine} spots in {city}", "suggest a place for dinner[ in {city}|]"),
        ("{restaurant} is a [nice|popular|well rated] {cuisine} place in {city}.", "I found {restaurant}[|, it serves {cuisine} food].",
         "How about {restaurant}[ in {city}|]?", "You could try {restaurant}, {cuisine}, " + PRICE + ".",
         "[There is|I suggest] {restaurant} in {city}.", "{restaurant} has good reviews[ for {cuisine}|]."),
        ("I found no {cuisine} restaurant in {city}.", "There is nothing {cuisine} near {city}."),
    ),
    Intent(
        "Restaurants/ReserveTable", "table", ("restaurant", "time", "party_size"),
        (PLEASE + "book [me |]a table at {restaurant}[ for {party_size}|][ at {time}|]",
         "[reserve|get] a table for {party_size}[ at {restaurant}||]", "i want to eat at {restaurant} {date}[| at {time}]",
         "make a reservation at {restaurant}[ {date}|]", "table for {party_size} at {time}",
         "we are {party_size}, [get|book] us into {restaurant}", "can i get a table at {restaurant} {date} at {time}",
         "dinner at {restaurant}[ for {party_size}|]", PLEASE + "reserve {restaurant} for {time}", "i need a reservation[ for {date}|]"),
        ("Your table for {party_size} at {restaurant} is [booked|reserved] for {time}.",
         "[Done|Great]: {restaurant}, {time}, {party_size}.", "I reserved {restaurant} at {time}.",
         "[All set|Confirmed], {party_size} at {restaurant}[| at {time}].", "{restaurant} expects you at {time}.",
         "Booked: {restaurant} at {time} for {party_size}."),
        ("{restaurant} has no table at {time}.", "Unfortunately {restaurant} is full at {time}."),
        confirms=True,
    ),
    Intent(
        "Travel/FindFlight", "flight", ("origin", "destination", "date"),
        (PLEASE + "find [me |]a flight to {destination}[ from {origin}|][ {date}|]", "i need to fly to {destination}[| {date}]",
         "flights from {origin} to {destination}[| {date}]", "how do i get from {origin} to {destination} {date}",
         "i want to go to {destination}[ {date}|]", "cheapest flight to {destination}[ leaving {date}|]",
         PLEASE + "look for a plane from {origin} to {destination}", "what flies to {destination} {date}",
         "is there a [direct |]flight from {origin}[ to {destination}|]", "get me to {destination} {date}"),
        ("{airline} flies from {origin} to {destination} at {time}.",
         "There is a[n|] {airline} flight[ to {destination}|] leaving at {time}.", "I found {airline}, {time}, {date}.",
         "The best one is {airline} at {time}.", "{airline} has a flight to {destination} {date}.",
         "You can take {airline} from {origin} at {time}."),
        ("There are no flights from {origin} to {destination} {date}.", "Nothing flies to {destination} {date}."),
    ),
    Intent(
        "Travel/BookHotel", "hotel", ("city", "date", "nights"),
        (PLEASE + "book [me |]a [room|hotel] in {city}[ for {nights}|][ {date}|]", "i need a [hotel|place to stay] in {city}[| {date}]",
         "find a " + PRICE + " hotel in {city}", "reserve {nights} in {city}[| from {date}]", "somewhere to sleep in {city} {date}",
         "hotel in {city} for {nights}", "i'm staying in {city} for {nights}[| from {date}], get me a hotel",
         "can i get a room {date}[| in {city}]", "we want {nights} in {city}"),
        ("I booked {hotel} in {city} for {nights}.", "[Done|Confirmed]: {nights} at {hotel}.",
         "Your room at {hotel} is [reserved|booked][| from {date}].", "{hotel}, {city}, {nights}, starting {date}.",
         "You are staying at {hotel} for {nights}."),
        ("Every " + PRICE + " hotel in {city} is full {date}.", "I found no room in {city} {date}."),
        confirms=True,
    ),
    Intent(
        "Travel/GetRide", "ride", ("place",),
        (PLEASE + "[get|call] me a [cab|taxi|ride][ to {place}||]", "i need a ride to {place}[| at {time}]", "take me to {place}",
         "[cab|taxi] to {place} at {time}", "order a car to {place}[ for {party_size}|]", "how do i get to {place}, maybe a taxi",
         "send a driver for {time}", "i have to be at {place} by {time}"),
        ("A [car|driver] to {place} is on its way.", "[OK|Done], your ride to {place} comes at {time}.",
         "Your driver will [take|bring] you to {place}.", "Ride to {place} ordered.", "The taxi to {place} arrives [soon|at {time}]."),
        ("There are no drivers near {place} right now.", "No cars are free at the moment."),
        confirms=True,
    ),
    Intent(
        "SmartHome/SetLight", "light", ("room",),
        (PLEASE + "[turn on|switch on|turn off|dim] the [light|lights|lamp] in the {room}", "{room} [light|lights] [on|off][ please|]",
         PLEASE + "make the {room} [light |]{color}", "[lights|light] on[| in the {room}]", "set the {room} lights to {color}",
         "it's dark in the {room}", "i want {color} light[ in the {room}|]", "change the {room} lamp to {color}",
         "kill the lights in the {room}", "brighten the {room}"),
        ("[OK|Done], the {room} light is [on|off|set].", "The {room} is [now |]{color}.", "I changed the {room} lights[| to {color}].",
         "{room} lights, done.", "Lights in the {room} adjusted."),
        ("The {room} lamp is not responding.", "I cannot reach the light in the {room}."),
    ),
    Intent(
        "SmartHome/SetTemperature", "heating", ("degrees", "room"),
        (PLEASE + "set the [heating|thermostat|temperature] [in the {room} |]to {degrees}", "make it {degrees}[ in the {room}|]",
         "[i'm cold|i'm freezing|it's too hot], [set|put] the {room} to {degrees}", "heat the {room}[| to {degrees}]",
         "thermostat {degrees}", "change the temperature in the {room}", "i want {degrees} in the {room}",
         "warm up the {room}[ to {degrees}|]", "cool the {room} down to {degrees}"),
        ("[OK|Done], {room} set to {degrees}.", "The {room} will be {degrees} soon.", "Heating the {room} to {degrees}.",
         "Thermostat in the {room}: {degrees}.", "I set it to {degrees} in the {room}."),
        ("The thermostat in the {room} is offline.", "I cannot reach the {room} thermostat."),
    ),
    Intent(
        "SmartHome/LockDoor", "door", ("door",),
        (PLEASE + "[lock|unlock] the {door}", "is the {door} [locked|open]", "[lock up|close] the {door}[| please]",
         "make sure the {door} is locked", "i forgot to lock the {door}", "[shut|bolt] the {door}", "lock the house[|, the {door} too]",
         "open the {door}"),
        ("The {door} is [now |][locked|closed].", "[OK|Done], {door} locked.", "I [locked|checked] the {door}.", "Your {door} is secure.",
         "{door}: locked."),
        ("The {door} is jammed.", "I get no answer from the {door} lock."),
    ),
    Intent(
        "Reminders/AddReminder", "reminder", ("task", "time"),
        (PLEASE + "remind me to {task}[ {date}|][ at {time}|]", "[set|add|create] a reminder to {task}[ at {time}|]",
         "don't let me forget to {task}[| {date}]", "i have to {task} at {time}[ {date}|]", "i must {task} {date}",
         "new reminder[: {task}|]", "note to self, {task}", "reminder for {time}", PLEASE + "tell me to {task} {date} at {time}",
         "i need to remember to {task}"),
        ("[OK|Sure], I'll remind you to {task} at {time}.", "Reminder set: {task}[|, {time}].", "I will remind you at {time}[| {date}].",
         "[Got it|Noted]: {task} at {time}.", "You will hear from me at {time}[| to {task}]."),
    ),
    Intent(
        "Reminders/ListReminders", "my list", ("date",),
        ("what's on my [list|calendar|schedule] {date}", "what do i have to do {date}", "[read|show] me my reminders[ for {date}|]",
         "[do i have|are there] any reminders {date}", "am i busy {date}", "any plans[ for {date}|]", "my reminders[| for {date}] please",
         "what's up {date}"),
        ("You have one: {task} at {time}.", "[For {date}: |]{task}, at {time}.", "There is {task} at {time}[| {date}].",
         "You wanted to {task} at {time}.", "Only one thing {date}: {task}."),
        ("You have nothing planned {date}.", "Your list is empty {date}."),
    ),
    Intent(
        "Shopping/AddToList", "shopping list", ("item",),
        (PLEASE + "[add|put] [{quantity}|some|] {item} [to|on] [my|the] shopping list", "we need {quantity} {item}",
         "[we're|i'm] out of {item}", "put {item} on the list", "{item}, {quantity}, on my list", "i should buy {item}[| at {store}]",
         "add something to my shopping list", "next time i'm at {store} i need {item}", "shopping list: {item}"),
        ("I added {item}[| to your list].", "{item} is on your [shopping |]list.", "[OK|Sure], {quantity} {item}.", "[Done|Added]: {item}.",
         "Your list now has {item}."),
    ),
    Intent(
        "Shopping/OrderItem", "order", ("item", "quantity"),
        (PLEASE + "order [{quantity} |]{item}[ from {store}|]", "buy [me |]{quantity} {item}[| at {store}]", "i want to buy {item}",
         "get {item} from {store}", "[reorder|order again] {item}", "i need {quantity} {item} delivered[ {date}|]",
         "purchase {quantity} {item}", "can you get me {item}[| from {store}] {date}", "place an order for {item}[ at {store}|]"),
        ("I ordered {quantity} {item}[ from {store}|].", "[Done|Great], {quantity} {item} will arrive {date}.",
         "Your order of {item} is placed.", "{store} will deliver {item} {date}.", "Ordered: {quantity} {item}."),
        ("{item} is out of stock[| at {store}].", "{store} does not sell {item}."),
        confirms=True,
    ),
    Intent(
        "Shopping/TrackOrder", "package", ("item",),
        ("where is my {item}[ order|]", "when [does|will] my {item} [arrive|come]", "track my [order|package]",
         "[has|did] my {item} ship[ped|]", "status of my {item} order", "is my {item} coming {date}",
         "any news about the {item} from {store}", "what happened to my order[ of {item}|]"),
        ("Your {item} will arrive {date}.", "The {item} [is|are] on [its|the] way, [expect it|arriving] {date}.",
         "{store} shipped your {item}.", "It comes {date}.", "Your order from {store} arrives {date} by {time}."),
        ("I see no order of {item}.", "There is no package with {item}."),
    ),
)

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

# What the assistant asks, and how users answer, per required slot; the answers come after those of every slot.
ASKS: dict[str, tuple[str, ...]] = {
    "song": ("Which song?", "What would you like to hear?", "Which track [do you want|should I play]?", "Any song in mind?",
             "What song is it?"),
    "genre": ("What kind of music?", "Which genre?", "What style do you like?", "What are you in the mood for?", "Any genre?"),
    "level": ("[To what|Which] level?", "How loud?", "What volume [do you want|should I set]?", "Where should I set it?", "Which volume?"),
    "city": ("[In|For] which city?", "Where?", "Which city [do you mean|are you interested in]?", "What city?", "For what place?"),
    "date": ("[For|On] which day?", "When?", "What date [do you have in mind|works for you]?", "Which day?", "On what date?"),
    "time": ("[For|At] what time?", "When should it be?", "What time [works for you|do you want]?", "Which time?", "At which hour?"),
    "duration": ("For how long?", "How long should it run?", "What duration?", "How many minutes?", "How long?"),
    "cuisine": ("What kind of food?", "Which cuisine [do you like|would you like]?", "What would you like to eat?", "Any cuisine in mind?",
                "What food?"),
    "restaurant": ("At which restaurant?", "Which restaurant [do you mean|should I book]?", "Where would you like to eat?", "What place?",
                   "Where?"),
    "party_size": ("For how many people?", "How many [people|guests] will there be?", "How many of you?", "What size is the party?",
                   "For how many?"),
    "origin": ("Where are you [leaving|flying] from?", "From which city?", "Departing from where?", "What is your departure city?",
               "From where?"),
    "destination": ("Where do you want to go?", "To which city?", "What is your destination?", "Where to?", "Flying where?"),
    "nights": ("For how many nights?", "How long will you stay?", "How many nights?", "How long is your stay?", "What length of stay?"),
    "place": ("Where to?", "Where do you want to go?", "What is the destination?", "Where should the driver take you?", "To what place?"),
    "room": ("[In which|Which] room?", "Where exactly?", "For which room?", "What room [do you mean|is it]?", "Which one?"),
    "degrees": ("What temperature?", "How warm [should it be|do you want it]?", "To how many degrees?", "Which temperature?", "How warm?"),
    "door": ("Which door?", "Which one?", "What door do you mean?", "Which lock?", "Which entrance?"),
    "task": ("What should I remind you of?", "What is it about?", "What's the reminder?", "Remind you to do what?", "To do what?"),
    "item": ("Which item?", "What is it?", "What [would you like|do you need]?", "Which product?", "What item do you mean?"),
    "quantity": ("How many?", "How much [do you need|should I get]?", "What quantity?", "How many would you like?", "What amount?"),
}

ANSWERS: dict[str, tuple[str, ...]] = {
    "": ("{%}", "{%}[ please|]", "[uh |um |][let's say |make it |]{%}", "{%} [would be great|sounds good|is fine]", "i'd say {%}",
         "{%}, thanks", "[it's|that would be] {%}", "i think {%}", "[how about|maybe] {%}", "the answer is {%}"),
    "time": ("at {%}", "around {%}", "{%} [works|is good]", "by {%}", "not before {%}"),
    "party_size": ("we are {%}", "for {%}", "there will be {%}", "{%} of course", "just {%}"),
    "city": ("in {%}", "i'm in {%}", "{%}, where i live", "over in {%}", "near {%}"),
    "origin": ("from {%}", "i'm leaving {%}", "out of {%}", "departing {%}", "starting in {%}"),
    "destination": ("to {%}", "i'm going to {%}", "i want to visit {%}", "off to {%}", "heading to {%}"),
    "room": ("in the {%}", "the {%}", "the one in the {%}", "i mean the {%}", "{%}, obviously"),
    "door": ("the {%}", "i mean the {%}", "the {%} of course", "that would be the {%}", "oh, the {%}"),
    "nights": ("for {%}", "we stay {%}", "just {%}", "{%} at most", "{%} i guess"),
}

CONFIRM = ("[You want|So that is] @. [Is that right|Shall I go ahead|Correct]?", "[To confirm|Let me check]: @. OK?", "@[, right|, yes]?",
           "I have @. Should I go on?", "Please confirm: @.", "That would be @, [shall I|do you want me to] do it?", "Just checking, @?")
YES = ("yes[ please|]", "[yep|yeah|sure|right]", "[go ahead|do it]", "that's [right|correct]", "[perfect|great], do that", "ok",
       "yes, [go on|that's it]", "correct", "sounds good", "exactly", "mm-hm", "please do")
CHANGE = ("[actually|oh wait|hmm], [make it|i'd rather have|change that to] {%}", "can you [make|change] it [to |]{%}[ instead|]",
          "{%} would be better[|, sorry]", "i changed my mind, {%}", "no, let's do {%}[| instead]", "on second thought {%}", "better {%}",
          "switch it to {%}")

# What surrounds requests: a new goal, a goal that cuts in, a goal that is taken up again, a request said anew.
NEW = ("", "", "[ok|great|thanks], ", "[also|and also] ", "next, ", "and ", "[one more thing|another thing], ", "now ", "alright, ",
       "oh and ")
CUT_IN = ("[wait|hang on|hold on], ", "[one sec|just a second], [first |]", "oh, before that, ", "sorry, [quick question|something else], ",
          "before i answer, ", "hm, actually first ", "that reminds me, ", "not yet. ", "leave that for a moment, ", "")
BACK = ("[ok|so|right], back to the @, ", "[about|regarding] the @[ again|], ", "as for the @, ", "now the @ again: ", "where were we? ",
        "returning to the @, ", "and the @ from before, ", "coming back to the @: ", "for the @, ", "")
REPHRASE = ("no, ", "[no, |]i [said|meant] ", "that's [wrong|not right|not it], ", "[no no|nope], ", "not that. ", "", "", "listen, ",
            "try again: ", "you [misunderstood|got that wrong], ", "i was asking: ", "let me rephrase, ")

CANNOT = ("Sorry, I [can't|cannot] [do that|help with that].", "I'm not able to do that[ yet|].",
          "Hmm, I don't know [that one|how to do that].", "Something went wrong[|, please try later].", "I'm afraid I can't.",
          "That isn't supported.", "I [can't|couldn't] do this right now.")
UNHEARD = ("Sorry, I didn't [catch|get] that.", "[Could|Can] you repeat that?", "I didn't understand.", "Pardon?", "What was that?",
           "Come again, please?", "I'm not sure what you mean.")
GIVE_UP = ("[never mind|nevermind]", "forget it", "[ugh, |]leave it", "i'll do it myself", "[this is|you're] useless", "stop", "whatever",
           "drop it", "no. just no", "you don't get it")
GIVE_UP_REPLY = ("OK.", "[Sorry about that|I'm sorry].", "All right[|, maybe another time].", "Cancelled.", "OK, [stopping|leaving it].",
                 "My apologies.")
THANKS = ("thanks[| a lot]", "thank you[| so much]", "[great|perfect|cool][, thanks|]", "that's all[| for now]", "[bye|goodbye]",
          "no, that's it", "[awesome|lovely]", "cheers", "good job", "nothing else[, thanks|]", "ok bye", "have a nice day")
THANKS_REPLY = ("You're welcome[|!]", "[Any time|My pleasure].", "Happy to help[| you].", "[Bye|Goodbye][|, have a nice day]!",
                "Glad I could help.", "Have a good one.", "No problem.")
ANYTHING_ELSE = ("", "", "", "", " Anything else?", " [Can|Could] I help with anything else?", " What else?", " Is there more?",
                 " Do you need something else?", " Tell me if you need more.")
GREETING = ("Hello, how can I help?", "Hi[|, there]! What can I do for you?", "Good [morning|evening|day].", "Welcome back.",
            "I'm listening.", "Yes?")

MISHEARD = {
    "play": "pay", "alarm": "a farm", "weather": "whether", "set": "said", "timer": "time her", "light": "right", "lights": "nights",
    "lock": "luck", "door": "floor",
    "table": "cable", "flight": "fright", "hotel": "motel", "book": "look", "order": "border", "remind": "rewind", "list": "lift",
    "ride": "right", "four": "for",
    "two": "too", "ten": "then", "five": "fire", "six": "sticks", "seven": "heaven", "eight": "ate", "nine": "fine", "rain": "train",
    "room": "broom", "volume": "column",
    "milk": "silk", "eggs": "legs", "bread": "red", "cheese": "please", "kitchen": "chicken", "jazz": "chess", "blues": "shoes",
    "thai": "tie", "greek": "creek",
    "french": "fresh", "boston": "austin", "oslo": "also", "paris": "pears", "berlin": "merlin", "london": "landing",
    "tomorrow": "to marrow", "monday": "some day",
    "friday": "fry day", "call": "cold", "water": "what are", "wake": "make", "find": "fine", "cancel": "council", "morning": "mourning",
    "please": "peas",
}
