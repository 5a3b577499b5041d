"""Icons whose names mislead: what they show, found by looking at them, for sets that carry no code points.

"" leaves an icon out: it shows something else than the emoji of that name, or nothing that could be recognised.

Cost: nothing; plain data.
"""

from __future__ import annotations

# fmt: off
ICONS: dict[str, dict[str, str]] = {
    "fxemoji": {
        "dog": "dog face", "dogside": "dog", "cat": "cat face", "catside": "cat", "tiger": "tiger face",
        "tigerside": "tiger", "mouse": "mouse face", "mouseside": "mouse", "pig": "pig face", "pigside": "pig",
        "bunny": "rabbit face", "bunnyside": "rabbit", "dragonhead": "dragon face", "dragonside": "dragon",
        "leopardside": "leopard", "hampster": "hamster", "pigsnout": "pig nose",
        "frontfacingchick": "front-facing baby chick", "spurtingwhale": "spouting whale",
        "umbrella": "closed umbrella", "oldpersonalcomputer": "laptop", "wiredkeyboard": "keyboard",
        "construction": "building construction", "constructionsign": "construction", "2hearts": "two hearts",
        "heartarrow": "heart with arrow", "heartgreen": "green heart", "heartpurple": "purple heart",
        "heartyellow": "yellow heart", "americasglobe": "globe showing Americas",
        "asiaaustraliaglobe": "globe showing Asia-Australia", "europeafricaglobe": "globe showing Europe-Africa",
        "meridianglobe": "globe with meridians",
        "anticlockwiseupwardsanddownwardsarrows": "counterclockwise arrows button",
        "arrowrightwardsdownwards": "right arrow curving down", "arrowrightwardsupwards": "right arrow curving up",
        "backwithleftwardsarrow": "BACK arrow", "endwithleftwardsarrow": "END arrow", "onarrowleftright": "ON! arrow",
        "soonwithrightarrow": "SOON arrow", "topwithupwardsarrow": "TOP arrow", "banknotedollar": "dollar banknote",
        "banknoteeuro": "euro banknote", "banknotepound": "pound banknote", "banknoteyen": "yen banknote",
        "beachumbrella": "beach with umbrella", "bellcancellation": "bell with slash",
        "blackdownpointingdoublearrow": "fast down button", "blackleftpointingarrow": "reverse button",
        "blackleftpointingdoublearrow": "fast reverse button", "blackrightpointingarrow": "play button",
        "blackrightpointingdoublearrow": "fast-forward button", "blackuppointingdoublearrow": "fast up button",
        "uppointingsmallredtrisngle": "upwards button", "downpointingsmallredtrisngle": "downwards button",
        "bolt": "high voltage", "bookmarktab": "bookmark tabs", "bow": "ribbon", "cellphone": "mobile phone",
        "phonerightarrowleft": "mobile phone with arrow", "chartdownwardstrend": "chart decreasing",
        "chartupwardstrend": "chart increasing", "chartupwardstrendyen": "chart increasing with yen",
        "chilipepper": "hot pepper", "clockwisedownupcircledarrows": "clockwise vertical arrows",
        "clockwiserightwardsleftwardscirclearrows": "repeat button",
        "clockwiserightwardsleftwardscirclearrowsone": "repeat single button",
        "closedmailboxlowered": "closed mailbox with lowered flag",
        "closedmailboxraised": "closed mailbox with raised flag",
        "openmailboxlowered": "open mailbox with lowered flag", "openmailboxraised": "open mailbox with raised flag",
        "outbox": "outbox tray", "confetti": "confetti ball", "controlknob": "control knobs",
        "diamondshapewithdotinside": "diamond with a dot", "doubleexclaimationmark": "double exclamation mark",
        "exclaimationquestionmark": "exclamation question mark", "whiteexclaimationmark": "white exclamation mark",
        "eightspokedasterix": "eight-spoked asterisk", "envelopedownarrowabove": "envelope with arrow",
        "evergreen": "evergreen tree", "fallingleaf": "fallen leaf", "leaffluttering": "leaf fluttering in wind",
        "fishcakeswirl": "fish cake with swirl", "forkknife": "fork and knife with plate",
        "floppydisk2": "floppy disk", "flexbicep": "flexed biceps", "handheldvideocamera": "video camera",
        "heavymultiplicationsymbol": "multiply", "heavylatincross": "latin cross", "heels": "high-heeled shoe",
        "mensshoe": "man's shoe", "mensrunner": "running shoe", "sandals": "woman's sandal", "mansshirt": "t-shirt",
        "womansshirt": "woman's clothes", "pinkwallet": "purse", "makeupbag": "clutch bag",
        "highspeedtrainbulletnose": "bullet train", "leftmagnifyingglass": "magnifying glass tilted left",
        "rightmagnifyingglass": "magnifying glass tilted right", "lockandkey": "locked with key",
        "manltepiececlock": "mantelpiece clock", "negativesquaredlatincaptiala": "A button",
        "negativesquaredlatincaptialb": "B button", "negativesquaredlatincaptialo": "O button",
        "squaredup": "UP! button", "notebookdecorativecover": "notebook with decorative cover",
        "nooneunder18symbol": "no one under eighteen", "potablewatersystem": "potable water",
        "present": "wrapped gift", "reminder": "reminder ribbon", "saggitarius": "Sagittarius",
        "silhouetteohjapan": "map of Japan", "sixpointedstarwithdot": "dotted six-pointed star",
        "snowmountains": "snowy mountain", "speaker3soundwaves": "speaker high volume",
        "speakeronesoundwave": "speaker medium volume", "speakercancellation": "muted speaker",
        "stormcloud": "cloud with lightning", "sunraincloud": "sun behind rain cloud", "sunrays": "sun",
        "studiomic": "studio microphone", "telephonereceiver2": "telephone receiver", "tennisball": "tennis",
        "toykotower": "Tokyo tower", "videocasette": "videocassette", "waningbibbousmoon": "waning gibbous moon",
        "wave": "water wave", "clock1oclock": "one o'clock", "clock1thirty": "one-thirty",
        "clock2oclock": "two o'clock", "clock2thirty": "two-thirty", "clock3oclock": "three o'clock",
        "clock3thirty": "three-thirty", "clock4oclock": "four o'clock", "clock4thirty": "four-thirty",
        "clock5thirty": "five-thirty", "clock6oclock": "six o'clock",
        "clock6thirty": "six-thirty", "clock7oclock": "seven o'clock", "clock12oclock": "twelve o'clock",
        "clock12thirty": "twelve-thirty", "down": "", "fog": "", "gamedie": "", "keyboard": "",
        "personalcomputer": "", "pistol": "", "window": "",
    },
    "emojione-v1": {
        "pistol": "", "up-button": "", "cricket": "", "exclamation-mark": "red exclamation mark", "laptop": "",
        "laptop-computer": "", "window": "", "shield": "",
    },
    "emojione": {
        "pistol": "", "up-button": "", "cricket": "", "exclamation-mark": "red exclamation mark",
        "laptop-computer": "laptop",
    },
}
# fmt: on
"""Set -> icon -> label."""
