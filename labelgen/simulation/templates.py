"""Templates that fit every intent: the assistant's questions and errors, the user's answers, and the phrases around requests.

`labelgen.simulation.realisation` describes the templates. The position of a template decides which splits use it (`splits.in_split`).
"""

from __future__ import annotations

# Tables: many short strings per line.
# fmt: off

# The assistant's questions for each required slot.
SLOT_QUESTIONS: dict[str, tuple[str, ...]] = {
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

# Answers to these questions; "" holds the answers that fit every slot. `{%}` is the value.
SLOT_ANSWERS: dict[str, tuple[str, ...]] = {
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

# Confirmation; `@` is the list of values.
CONFIRMATION_QUESTIONS = (
    "[You want|So that is] @. [Is that right|Shall I go ahead|Correct]?", "[To confirm|Let me check]: @. OK?", "@[, right|, yes]?",
    "I have @. Should I go on?", "Please confirm: @.", "That would be @, [shall I|do you want me to] do it?", "Just checking, @?")
CONFIRMATIONS = (
    "yes[ please|]", "[yep|yeah|sure|right]", "[go ahead|do it]", "that's [right|correct]", "[perfect|great], do that", "ok",
    "yes, [go on|that's it]", "correct", "sounds good", "exactly", "mm-hm", "please do")
SLOT_CHANGES = (
    "[actually|oh wait|hmm], [make it|i'd rather have|change that to] {%}", "can you [make|change] it [to |]{%}[ instead|]",
    "{%} would be better[|, sorry]", "i changed my mind, {%}", "no, let's do {%}[| instead]", "on second thought {%}", "better {%}",
    "switch it to {%}")

# Discourse markers before a request: for a new goal, one that interrupts another, one that is resumed (`@` is its topic), a correction.
NEW_GOAL = (
    "", "", "[ok|great|thanks], ", "[also|and also] ", "next, ", "and ", "[one more thing|another thing], ", "now ", "alright, ",
    "oh and ")
INTERRUPTION = (
    "[wait|hang on|hold on], ", "[one sec|just a second], [first |]", "oh, before that, ", "sorry, [quick question|something else], ",
    "before i answer, ", "hm, actually first ", "that reminds me, ", "not yet. ", "leave that for a moment, ", "")
RESUMPTION = (
    "[ok|so|right], back to the @, ", "[about|regarding] the @[ again|], ", "as for the @, ", "now the @ again: ", "where were we? ",
    "returning to the @, ", "and the @ from before, ", "coming back to the @: ", "for the @, ", "")
CORRECTION = (
    "no, ", "[no, |]i [said|meant] ", "that's [wrong|not right|not it], ", "[no no|nope], ", "not that. ", "", "", "listen, ",
    "try again: ", "you [misunderstood|got that wrong], ", "i was asking: ", "let me rephrase, ")

UNSUPPORTED = (
    "Sorry, I [can't|cannot] [do that|help with that].", "I'm not able to do that[ yet|].",
    "Hmm, I don't know [that one|how to do that].", "Something went wrong[|, please try later].", "I'm afraid I can't.",
    "That isn't supported.", "I [can't|couldn't] do this right now.")
NOT_UNDERSTOOD = (
    "Sorry, I didn't [catch|get] that.", "[Could|Can] you repeat that?", "I didn't understand.", "Pardon?", "What was that?",
    "Come again, please?", "I'm not sure what you mean.")
ABANDONMENTS = (
    "[never mind|nevermind]", "forget it", "[ugh, |]leave it", "i'll do it myself", "[this is|you're] useless", "stop", "whatever",
    "drop it", "no. just no", "you don't get it")
ABANDONMENT_RESPONSES = (
    "OK.", "[Sorry about that|I'm sorry].", "All right[|, maybe another time].", "Cancelled.", "OK, [stopping|leaving it].",
    "My apologies.")
THANKS = (
    "thanks[| a lot]", "thank you[| so much]", "[great|perfect|cool][, thanks|]", "that's all[| for now]", "[bye|goodbye]",
    "no, that's it", "[awesome|lovely]", "cheers", "good job", "nothing else[, thanks|]", "ok bye", "have a nice day")
THANKS_RESPONSES = (
    "You're welcome[|!]", "[Any time|My pleasure].", "Happy to help[| you].", "[Bye|Goodbye][|, have a nice day]!",
    "Glad I could help.", "Have a good one.", "No problem.")
FURTHER_HELP = (
    "", "", "", "", " Anything else?", " [Can|Could] I help with anything else?", " What else?", " Is there more?",
    " Do you need something else?", " Tell me if you need more.")
GREETINGS = (
    "Hello, how can I help?", "Hi[|, there]! What can I do for you?", "Good [morning|evening|day].", "Welcome back.",
    "I'm listening.", "Yes?")
