"""Mojibake and U+FFFD: found in every language that went through the wrong charset, in no other."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from winnow.text.mojibake import KINDS, faults

LANGUAGES = [
    "It’s the company’s “best” year – the café’s £5 menu costs €6… © 2008™",
    "« L’été », né à Orléans : « où sont les élèves ? » Noël…",
    "Die „Straße“ über die Brücke – „Spaß“, sagte er; größer als 5 °C.",
    "El niño comió mañana; ¿dónde está la señora? ¡Aquí! «Información», 1ª y 2º",
    "«A INFORMAÇÃO», disse. “NÃO…” MAÇÃ – são três milhões; AMANHû e IRMÔ",
    "La città è più bella perché c’è la libertà: «così» è già un po’ lontana.",
    "Zażółć gęślą jaźń, „świeżą śliwkę”.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "Árvíztűrő tükörfúrógép, „új törvény”.",
    "Šiandien oras gražus, o rytoj bus saulėta.",
    "Trong Sát Thủ: Mặt trời mọc ở đằng đông. CÂU ÂM",
    "Съешь же ещё этих мягких французских булок. «Сёмга» – В 2008 г.",
    "МІЛІЦІЯ ДІТІВІ дії її; Сьогодні йде дощ у м. Київ",
    "Љубав и вежба: њихов ђак, РІСІ",
    "Σήμερα βρέχει και αύριο θα έχει ήλιο.",
    "היום יורד גשם ומחר יהיה שמש.",
    "اليوم الطقس جميل وغدا مشمس.",
    "วันนี้อากาศดีมาก",
    "今天天气很好，我们去公园散步。",
    "今日は天気がとても良いので、公園へ。",
    "오늘은 날씨가 아주 좋아서",
    "a 2½×1½×¾ cm box, ½×½×½; 5 µm ± 1 %; §§ 3, 4; ¶ x²·y³ ¼½¾",
]


def kinds(*texts):
    return faults(pa.array(texts, pa.large_string())).to_pylist()


@pytest.mark.parametrize("text", LANGUAGES)
def test_text_of_any_language_is_clean(text):
    assert kinds(text) == ["clean"]


@pytest.mark.parametrize("charset", ["cp1252", "latin-1"])
@pytest.mark.parametrize("text", [t for t in LANGUAGES if not t.startswith("a 2")])
def test_text_that_was_decoded_as_a_western_charset(text, charset):
    # Undefined bytes are control characters to browsers.
    wrong = "".join(bytes([byte]).decode(charset, "ignore") or chr(byte) for byte in text.encode())
    assert kinds(wrong) == ["mojibake"]


@pytest.mark.parametrize(
    "text", [t for t in LANGUAGES if "Съешь" in t or "МІЛ" in t or "It’s" in t]
)
def test_text_that_was_decoded_as_windows_1251(text):
    assert kinds(text.encode().decode("cp1251", "ignore")) == ["mojibake"]


def test_kinds():
    assert kinds("x", "", "\ufffd", "Ã©", "Ã© \ufffd", "x" * 99 + "\ufffd" + "x" * 99) == [
        *("clean", "clean", "U+FFFD", "mojibake", "mojibake, U+FFFD", "U+FFFD")
    ]
    assert set(KINDS) == {"clean", "mojibake", "U+FFFD", "mojibake, U+FFFD"}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.sampled_from("aé😀\ufffdÃ©â€™ÐŸР°В\x80\n"), max_size=20), max_size=6))
def test_each_text_is_for_itself(texts):
    """Neighbours, slices and the type of the array change nothing."""
    once = [kinds(text)[0] for text in texts]
    assert kinds(*texts) == once
    assert faults(pa.array(["Ã©", *texts, "x"]).slice(1, len(texts))).to_pylist() == once
    assert [("U+FFFD" in kind) for kind in once] == ["\ufffd" in text for text in texts]
