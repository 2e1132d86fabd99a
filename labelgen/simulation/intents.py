"""What simulated users ask for: intents, with the templates of the requests and of the assistant's reports.

`labelgen.simulation.realisation` describes the templates. The position of a template decides which splits use it (`splits.in_split`).
"""

from __future__ import annotations

from typing import NamedTuple

# Tables: many short strings per line.
# fmt: off


class Intent(NamedTuple):
    """Something that users ask for, and the templates that talk about it."""

    name: str  # Domain/Intent
    topic: str  # what the user calls it when returning to it
    required_slots: tuple[str, ...]  # the assistant cannot act without them
    requests: tuple[str, ...]
    success_responses: tuple[str, ...]
    no_result_responses: tuple[str, ...] = ()  # the assistant did its part and found nothing
    confirms: bool = False  # the assistant asks for confirmation before it acts


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
