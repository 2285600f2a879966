"""Names of classes that say a side or a turn, such as "turn left", in many languages.

A name is read as words: "turn_left2" and "TurnLeft" have the word "left", and "lefty" and "bright" have none.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

# The two sides and the two turns, as signs that no name has; each with its mirror image.
_LEFT, _RIGHT, _CLOCKWISE, _COUNTER = "\ue000", "\ue001", "\ue002", "\ue003"
_MIRROR = str.maketrans(_LEFT + _RIGHT + _CLOCKWISE + _COUNTER, _RIGHT + _LEFT + _COUNTER + _CLOCKWISE)
_SIGNS = re.compile(f"[{_LEFT}{_RIGHT}{_CLOCKWISE}{_COUNTER}]")

# Words in lower case, separated by commas; some consist of several. A line for each language or family.
_WORDS = {
    _LEFT: """
        left, leftward, leftwards, leftmost, leftside, lefthand, lefthanded, southpaw,
        links, linke, linken, linker, linkes, linkem, linksherum, linkskurve, linksabbiegen, linkshändig, linkshänder,
        linksaf, linksom, linkerhand, linksaf slaan, vänster, vänstra, venstre, vinstri,
        gauche, gauches, izquierda, izquierdo, izquierdas, izquierdos, zurda, zurdo, esquerda, esquerdo, esquerdas,
        esquerdos, esquerra, esquerre, sinistra, sinistro, sinistre, sinistri, stânga, stâng, stângă, stinga,
        лево, влево, слева, налево, левее, левый, левая, левое, левые, левой, левого, левому, левым, левом, левую,
        левых, левша, вліво, зліва, наліво, ліворуч, лівий, ліва, ліве, лівою, лівої, лівій, ліву, ляво, наляво,
        вляво, ляв, лява, левичар, lijevo, ulijevo, lijeva, lijevi, levo, ulevo,
        lewo, lewy, lewa, lewe, lewej, lewą, lewym, vlevo, doleva, zleva, levý, levá, levé, levou, vľavo, doľava,
        zľava, ľavý, ľavá, ľavou, vasen, vasemmalle, vasemmalta, vasemmalla, vasemman, vasempaan, vasak, vasakule,
        balra, balról, baloldal, kairė, kairėn, kairę, pa kreisi, kreisā, αριστερά, αριστερός, αριστερή, αριστερό,
        soldan, solda, sol el, kiri, bên trái, sang trái, tay trái, rẽ trái, يسار, اليسار, لليسار, يسارا, يسارًا,
        أيسر, الأيسر, يسرى, اليسرى, שמאל, שמאלה, משמאל, לשמאל, השמאלית, چپ
    """,
    _RIGHT: """
        right, rightward, rightwards, rightmost, rightside, righthand, righthanded,
        rechts, rechte, rechten, rechter, rechtes, rechtem, rechtsherum, rechtskurve, rechtsabbiegen, rechtshändig,
        rechtshänder, rechtsaf, rechtsom, rechterhand, rechtsaf slaan, höger, högra, højre, høyre, hægri,
        droite, droites, derecha, derecho, derechas, derechos, diestra, diestro, direita, direito, direitas, direitos,
        dreta, destra, destro, destre, destri, dreapta, drept, dreaptă,
        право, вправо, справа, направо, правее, правый, правая, правое, правые, правой, правого, правому, правым,
        правом, правую, правых, правша, праворуч, правий, права, праве, правою, правої, правій, праву, дясно,
        надясно, вдясно, десен, дясна, desno, udesno,
        prawo, prawy, prawa, prawe, prawej, prawą, prawym, vpravo, doprava, zprava, pravý, pravá, pravé, pravou,
        sprava, oikea, oikealle, oikealta, oikealla, oikean, oikeaan, parem, paremale,
        jobbra, jobbról, jobboldal, dešinė, dešinėn, dešinę, pa labi, labā, δεξιά, δεξιός, δεξιή, δεξί,
        sağdan, sağda, sağa, sağ el, sağ, kanan, bên phải, sang phải, tay phải, rẽ phải, يمين, اليمين, لليمين, يمينا,
        يمينًا, أيمن, الأيمن, يمنى, اليمنى, ימין, ימינה, מימין, לימין, הימנית, راست
    """,
    _CLOCKWISE: """
        clockwise, uhrzeigersinn, im uhrzeigersinn, met de klok mee, medurs, med uret, sens horaire,
        sens des aiguilles d une montre, sentido horario, sentido de las agujas del reloj, sentido horário,
        senso orario,
        по часовой, по часовой стрелке, за годинниковою, zgodnie z ruchem wskazówek, ve směru hodinových ručiček,
        myötäpäivään, saat yönünde
    """,
    _COUNTER: """
        counterclockwise, counter clockwise, anticlockwise, anti clockwise, contraclockwise, gegenuhrzeigersinn,
        gegen den uhrzeigersinn, entgegen dem uhrzeigersinn, tegen de klok in, moturs, mod uret, mot urs,
        sens antihoraire, sens anti horaire, sens inverse des aiguilles d une montre, sentido antihorario, antihorario,
        sentido contrario a las agujas del reloj, sentido anti horário, sentido antihorário, antihorário,
        senso antiorario, antiorario, против часовой, против часовой стрелки, проти годинникової,
        przeciwnie do ruchu wskazówek, proti směru hodinových ručiček, vastapäivään, saat yönünün tersine
    """,
}

# Scripts that leave no space between words, or add endings to them: these are found inside of words.
_INSIDE = {
    _LEFT: "左, 왼쪽, 왼손, 왼발, 좌회전, 좌측, बाएं, बाएँ, बाईं, बायां, बायाँ, বাম দিকে, இடது, ఎడమ, ซ้าย",
    _RIGHT: "右, 오른쪽, 오른손, 오른발, 우회전, 우측, दाएं, दाएँ, दाईं, दायां, दायाँ, ডান দিকে, வலது, కుడి",
    _CLOCKWISE: "顺时针, 順時針, 時計回り, 右回り, 시계방향, 시계 방향, दक्षिणावर्त",
    _COUNTER: "逆时针, 逆時針, 反時計回り, 左回り, 반시계방향, 반시계 방향, वामावर्त",
}

# Words that also mean something else: they count only if two classes differ by nothing but them.
_DOUBTFUL = {
    _LEFT: "l, lt, lf, lh, lhs, port, west, izq, esq, sx, sol, sola, bal, trái, 좌",
    _RIGHT: "r, rt, rf, rh, rhs, starboard, east, der, dir, dx, sag, saga, jobb, phải, 우",
    _CLOCKWISE: "cw, horario, horário, orario, horaire",
    _COUNTER: "ccw, acw, antihoraire",
}


def _listed(*tables: Mapping[str, str]) -> dict[str, str]:
    """The sign of each word."""
    return {
        word.strip().casefold(): sign for table in tables for sign, words in table.items() for word in words.split(",")
    }


def _pattern(words: Mapping[str, str]) -> re.Pattern[str]:
    """Finds these words, the longest first, and those of `_INSIDE`."""
    inside = _listed(_INSIDE)
    whole, parts = (
        "|".join(re.escape(word) for word in sorted(found, key=len, reverse=True)) for found in (words, inside)
    )
    return re.compile(rf"(?<!\S)(?:{whole})(?!\S)|{parts}")


_SIGN_OF = _listed(_WORDS, _DOUBTFUL, _INSIDE)
_CLEAR = _pattern(_listed(_WORDS))
_ALL = _pattern(_listed(_WORDS, _DOUBTFUL))

_LETTERS = re.compile(r"(?<=[a-zß-öø-ÿа-яё])(?=[A-ZÀ-ÖØ-ÞА-ЯЁ])|(?<=\d)(?=[^\d\s])|(?<=[^\d\s])(?=\d)")


def _words(name: str) -> str:
    """The words and numbers of a name, in lower case, separated by single spaces."""
    kept = "".join(
        letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in unicodedata.normalize("NFKC", name)
    )
    return " ".join(_LETTERS.sub(" ", kept).casefold().split())


def word_of_side(name: str) -> str | None:
    """The first word of side or turn in a name, as `name` has it but in lower case; None if there is none."""
    found = _CLEAR.search(_words(name))
    return found[0] if found else None


@dataclass(frozen=True, eq=False)
class Sides:
    """What the `names` of the classes say about sides.

    `words`: the first word of side or turn of each class that has one. `pairs`: classes whose names differ only by
    words of side or turn, and are each other's mirror image.
    """

    names: tuple[str, ...]
    words: Mapping[int, str]
    pairs: tuple[tuple[int, int], ...]

    @property
    def any(self) -> bool:
        return bool(self.words or self.pairs)

    @cached_property
    def exchange(self) -> NDArray[np.int64]:
        """The class that the mirror image of each class shows, int64 (K,); its own without a pair."""
        found = np.arange(len(self.names))
        for one, other in self.pairs:
            found[[one, other]] = other, one
        return found

    @property
    def unpaired(self) -> list[int]:
        """Classes with a word of side or turn whose mirror image is no class."""
        return [number for number in self.words if self.exchange[number] == number]

    def __str__(self) -> str:
        """The classes and their words, for a message; only the first ones."""
        shown = [f"{self.names[number]!r} ({word!r})" for number, word in self.words.items()]
        shown += [
            f"{self.names[one]!r} and {self.names[other]!r}" for one, other in self.pairs if one not in self.words
        ]
        return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


def sides_of(names: Sequence[str]) -> Sides:
    """The words of side and turn in the names of classes, and the pairs that differ only by these."""
    words = {number: word for number, name in enumerate(names) if (word := word_of_side(name)) is not None}
    return Sides(tuple(names), words, tuple(_pairs(names)))


def _pairs(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    signed = [_ALL.sub(lambda found: _SIGN_OF[found[0]], _words(name)) for name in names]
    places: dict[str, list[int]] = {}
    for number, each in enumerate(signed):
        places.setdefault(each, []).append(number)
    for number, each in enumerate(signed):
        others = places.get(each.translate(_MIRROR), [])
        # Of several possible partners, none is certain.
        if _SIGNS.search(each) and len(others) == len(places[each]) == 1 and number < others[0]:
            yield number, others[0]
