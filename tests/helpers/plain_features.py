"""Features in plain Python, word by word."""

import unicodedata

# Scripts that put no space between words, by the names of their characters.
UNSPACED_NAMES = (
    "THAI ", "LAO ", "MYANMAR ", "KHMER ", "TAI LE ", "NEW TAI LUE ", "TAI THAM ", "YI SYLLABLE",
    "HIRAGANA ", "KATAKANA", "HALFWIDTH KATAKANA", "HENTAIGANA", "CJK UNIFIED", "CJK COMPATIBILITY",
    "IDEOGRAPHIC ITERATION MARK", "IDEOGRAPHIC CLOSING MARK", "IDEOGRAPHIC NUMBER ZERO",
    "COMBINING KATAKANA-HIRAGANA",
)  # fmt: skip


def words_of(text: str) -> list[str]:
    words = [""]
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        name = unicodedata.name(character, "")
        if category == "Cf" or name.startswith("VARIATION SELECTOR-"):
            continue
        if category[0] in "LMN" and not name.startswith(UNSPACED_NAMES):
            words[-1] += fold(character)
        elif category[0] in "LMNPS":
            words += [fold(character) if category[0] in "LMN" else character, ""]
        else:
            words += [""]
    return [word for word in words if word]


def fold(character: str) -> str:
    if len(character.casefold()) == 1:
        return character.casefold()
    return character.lower() if len(character.lower()) == 1 else character
