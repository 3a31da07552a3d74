"""The words that spaCy's English tokenizer knows, and the parts it splits them into.

Contractions are two words or three, also with a curly apostrophe or none (``dont``); abbreviations
keep their full stop, and emoticons stay whole.
"""

import itertools
from collections.abc import Iterator, Sequence

DOLLARS = "US$ C$ A$"
UNITS = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s"
    " km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K %"
)
"""Units in Latin letters, split off after a digit."""

_I_YOU = "i you we they"
_HE_SHE = "he she it"
_THAT = "that this"
_THESE = "these those"
_QUESTIONS = "who what when where why how there"
_FOLLOWERS = (  # what may follow which words
    (f"{_I_YOU} {_HE_SHE} {_QUESTIONS} {_THAT} {_THESE}", "'ll 'll|'ve 'd 'd|'ve"),
    (f"{_I_YOU} {_QUESTIONS} {_THESE}", "'ve"),
    (f"you we they {_QUESTIONS} {_THESE}", "'re"),
    (f"{_HE_SHE} {_QUESTIONS} {_THAT}", "'s"),
    ("i", "'m 'm|a"),
    ("ca could do does did had may might must need ought sha should wo would", "n't n't|'ve"),
    ("ai are is was were have has dare", "n't"),
    ("could might must should would", "'ve"),
)
_OTHER_WORDS = "ill its hell shell shed were well whore"  # and no contractions

_PARTED = (
    "y'|all how|'d|'y How|'d|'y not|'ve Not|'ve can|not Can|not gon|na Gon|na got|ta Got|ta let|'s"
    " Let|'s c'm|on C'm|on y|all not|ve Not|ve"
)
_WHOLE = (
    "' '' \\\") C++ and/or w/o 's 'S ‘s ‘S 're 'd 'em 'll 'nuff 'Cause 'cause 'cos 'Cos 'coz 'Coz"
    " 'cuz 'Cuz 'bout ma'am Ma'am o'clock O'clock lovin' Lovin' havin' Havin' doin' Doin' goin'"
    " Goin' nothin' Nothin' nuthin' Nuthin' ol' Ol' somethin' Somethin' a.m. p.m. e.g. E.g. E.G."
    " i.e. I.e. I.E. vs. v.s. Ph.D. D.C. N.C. N.D. N.H. N.J. N.M. N.Y. S.C. co. ä. ö. ü. Adm. Ak."
    " Ala. Apr. Ariz. Ark. Aug. Bros. Calif. Co. Colo. Conn. Corp. Dec. Del. Dr. Feb. Fla. Ga. Gen."
    " Gov. Ia. Id. Ill. Inc. Ind. Jan. Jr. Jul. Jun. Kan. Kans. Ky. La. Ltd. Mar. Mass. Md. Messrs."
    " Mich. Minn. Miss. Mo. Mont. Mr. Mrs. Ms. Mt. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. Prof."
    " Rep. Rev. Sen. Sep. Sept. St. Tenn. Va. Wash. Wis."
)
_EMOTICONS = (
    ":) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-)"
    " (; (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =["
    " :1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D"
    " ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o"
    " o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.)"
    " (>_<) (*_*)"
)


def vocabulary() -> Iterator[Sequence[str]]:
    """Each known word in its parts."""
    for words, endings in _FOLLOWERS:
        for first, rest, mark in itertools.product(words.split(), endings.split(), ("'", "’", "")):
            ending = rest.replace("'", mark).split("|")
            if "".join([first, *ending]) not in _OTHER_WORDS.split():
                yield [first, *ending]
                yield [first.title(), *ending]
    for word in _EMOTICONS.split():
        yield [word]
    for word in f"{_WHOLE} {_PARTED}".split():
        yield word.split("|")
        yield word.replace("'", "’").split("|")
    for letter in "abcdefghijklmnopqrstuvwxyz":
        yield [f"{letter}."]
    for hour, half in itertools.product(range(1, 13), ("a.m.", "am", "p.m.", "pm")):
        yield [str(hour), half]
