"""English words that people mistake for each other, leave out, or bend wrongly."""

from __future__ import annotations

# Left out, doubled or exchanged.
SMALL = """
a an the of to in on at by for with from into as that this it is was are were be been am he she
they we you i his her their our my your its him them us me and but or if so not no had has have do
did will would can could should may there then than when who which what all some any very up out
off over about after before more one only
"""

# Sounding alike, or easily mistaken; a slash separates the words of a group.
CONFUSED = """
their/there/they're your/you're its/it's to/too/two then/than were/where/we're of/off lose/loose
who's/whose quite/quiet hear/here no/know by/buy weather/whether passed/past threw/through new/knew
right/write our/are/hour week/weak see/sea be/bee son/sun meet/meat piece/peace wait/weight
way/weigh one/won would/wood hole/whole made/maid mail/male main/mane plain/plane pair/pear/pare
rain/reign road/rode sale/sail seen/scene some/sum steal/steel tail/tale wear/ware which/witch
accept/except advice/advise affect/effect allowed/aloud already/ready breath/breathe brake/break
choose/chose cloth/clothe course/coarse desert/dessert dear/deer die/dye fair/fare feel/fell
find/fined flour/flower for/four/fore form/from great/grate hair/hare heal/heel heard/herd
him/hem hoped/hopped hoping/hopping idle/idol knight/night lead/led lay/lie least/lest
lightening/lightning mourning/morning not/knot now/know principal/principle rap/wrap read/red
role/roll root/route sight/site/cite stair/stare stationary/stationery straight/strait
though/thought/through tough/though thorough/through tired/tried us/use want/won't wander/wonder
waste/waist wonder/wander world/word were/was well/we'll weather/wether believe/belief
practice/practise proceed/precede moral/morale person/personal ate/eight bare/bear
been/bean blew/blue board/bored cell/sell cent/sent/scent check/cheque creak/creek days/daze
dew/due feat/feet flew/flu guest/guessed hall/haul key/quay lone/loan mind/mine nose/knows oar/or
pale/pail poor/pour/pore pray/prey sew/so/sow soar/sore sole/soul stake/steak thrown/throne
tide/tied toe/tow vain/vein vary/very wine/whine yoke/yolk could/cold can/can't every/ever
ever/never has/as his/is he/the they/the an/and a/an in/on at/on on/of to/at in/at for/to with/of
from/of by/with into/in as/is if/is it/is off/from that/than this/the them/then what/that
which/that who/which and/as so/such much/many less/fewer good/well between/among been/being
being/been
"""

# Agreement and forms of verbs; a slash separates words that stand for each other.
FORMS = """
is/are was/were has/have does/do doesn't/don't isn't/aren't wasn't/weren't hasn't/haven't
this/these that/those a/an he/him she/her I/me we/us they/them who/whom his/him went/gone/goed
saw/seen did/done/do came/come ran/run/runned began/begun/begin took/taken/take gave/given/give
wrote/written/writed knew/known/knowed ate/eaten/eat fell/fallen broke/broken spoke/spoken/speaked
drank/drunk sang/sung rose/risen rode/ridden drove/driven chose/chosen stole/stolen wore/worn
forgot/forgotten grew/grown/growed flew/flown threw/thrown/throwed thought/think/thinked
brought/bring/brang bought/buy/buyed caught/catch/catched taught/teach/teached made/make/maked
found/find/finded said/say/sayed heard/hear left/leave kept/keep/keeped
felt/feel/feeled lost/lose stood/stand sat/sit sent/send built/build/builded held/hold/holded
met/meet slept/sleep/sleeped paid/pay/payed laid/lay/layed led/lead lent/lend spent/spend won/win
children/childs/childrens men/man/mens women/woman/womans people/peoples feet/foot/foots
teeth/tooth/tooths mice/mouse/mouses sheep/sheeps better/good/gooder worse/bad/worser
best/better/bestest most/more best/most easier/easy himself/hisself themselves/theirselves
had/have would/will could/can am/is am/are be/is been/be being/be
"""

# Spellings that sound alike or are easily exchanged, within a word.
SOUNDS = """
ie/ei ei/ie ance/ence ence/ance ant/ent ent/ant able/ible ible/able ary/ery ery/ary er/or or/er
er/ar ar/er le/el al/el el/al ly/y ally/aly ally/ly lly/ly ely/ly tion/sion sion/tion tion/cion
cious/tious ough/ouf ough/ogh ght/gth ght/th gh/g igh/i ph/f f/ph kn/n wr/r wh/w w/wh rh/r sc/s
sc/c s/sc c/s s/c s/z z/s c/k k/c ck/k ck/c qu/q qu/kw x/ks ous/us ous/ious ious/ous us/ous our/or
ou/o o/ou ea/ee ee/ea ea/e e/ea ai/a a/ai ai/ia ia/ai oa/o ua/au au/ua eau/eu eu/ue ue/u ui/iu
oi/io io/oi y/i i/y ies/ys ied/yed y/ey ey/y ed/d ed/t ful/full full/ful fully/fuly ment/mant
dge/ge tch/ch sh/ch mn/m mb/m bt/t sw/s pt/t th/t t/th st/s nd/n ern/en ing/in ing/eing e/ per/pre
pre/per dis/diss de/di di/de em/im rr/r sur/su
"""
VOWELS = "aeiou"

# Neighbours on a keyboard with the English layout.
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def groups(text: str) -> dict[str, list[str]]:
    """Return for each word of groups the others of its groups."""
    found: dict[str, list[str]] = {}
    for group in text.split():
        words = group.split("/")
        for word in words:
            found.setdefault(word, []).extend(one for one in words if one != word)
    return {word: others for word, others in found.items() if others}


def key_neighbours() -> dict[str, str]:
    """Return for each letter those on the keys beside it, in its row and the next ones."""
    found: dict[str, str] = {}
    for row, keys in enumerate(KEYBOARD):
        for column, key in enumerate(keys):
            beside = keys[max(0, column - 1) : column] + keys[column + 1 : column + 2]
            above = KEYBOARD[row - 1][column : column + 2] if row else ""
            below = KEYBOARD[row + 1][max(0, column - 1) : column + 1] if row < 2 else ""
            found[key] = beside + above + below
    return found
