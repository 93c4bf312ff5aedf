"""The tar format: written for every reader, read as what a stranger may have made."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core.media.links import leads_out
from backups_app.core.media.tar import FormatError, Member, Order, Reader, coalesced, header, padding, shown, trailer


class Collected:
    """Everything that a reader hands on."""

    def __init__(self) -> None:
        self.members: list[tuple[Member, bytes]] = []
        self._content = bytearray()

    def begin(self, member: Member) -> None:
        self._content.clear()
        self._member = member

    def content(self, piece: bytes) -> None:
        self._content += piece

    def end(self) -> None:
        self.members.append((self._member, bytes(self._content)))


def read(tar: bytes, *, piece_bytes: int = 1 << 20) -> list[tuple[Member, bytes]]:
    sink = Collected()
    reader = Reader(sink)
    for at in range(0, len(tar), piece_bytes):
        reader.feed(tar[at : at + piece_bytes])
    reader.finish()
    return sink.members


def written(*members: tuple[Member, bytes]) -> bytes:
    tar = b"".join(header(member) + content + padding(len(content)) for member, content in members)
    return tar + trailer(len(tar))


def refused(tar: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        read(tar)
    return caught.value.message


def as_name(content: bytes) -> str:
    """A file name of these bytes, whatever they are."""
    plain = content.replace(b"/", b"_").replace(b"\0", b"_")
    return (
        ("_" + plain.decode("utf-8", "surrogateescape"))
        if plain in (b".", b"..")
        else plain.decode("utf-8", "surrogateescape")
    )


names = st.binary(min_size=1, max_size=80).map(as_name) | st.text(min_size=1, max_size=60).map(
    lambda text: as_name(text.encode("utf-8", "replace"))
)
paths = st.lists(names, min_size=1, max_size=6).map("/".join)
relaxed = settings(deadline=None, database=None)
times = st.integers(-(1 << 63), (1 << 63) - 1)


@relaxed
@given(paths, st.binary(max_size=2000), st.integers(0, 0o777), times, st.integers(1, 5000))
def test_every_file_comes_back_as_it_was_written(path: str, content: bytes, mode: int, mtime_ns: int, piece: int):
    member = Member(path=path, kind="file", mode=mode, mtime_ns=mtime_ns, size_bytes=len(content))
    assert read(written((member, content)), piece_bytes=piece) == [(member, content)]


@relaxed
@given(paths, paths, times)
def test_every_link_and_folder_comes_back_as_it_was_written(path: str, target: str, mtime_ns: int):
    link = Member(path=path, kind="link", mtime_ns=mtime_ns, target=target)
    folder = Member(path=path, kind="folder", mode=0o755, mtime_ns=mtime_ns)
    assert read(written((link, b""), (folder, b""))) == [(link, b""), (folder, b"")]


def test_a_size_that_needs_a_record_comes_back():
    member = Member(path="f", kind="file", size_bytes=1 << 36, owner=(1 << 30, 1 << 30))
    sink = Collected()
    Reader(sink).feed(header(member))
    assert sink._member.size_bytes == 1 << 36


def foreign(
    change: Callable[[tarfile.TarInfo], None] = lambda _: None, *, kind: int = tarfile.PAX_FORMAT, **pax: str
) -> bytes:
    """One file in a tar of the standard library, after a change."""
    info = tarfile.TarInfo("file")
    info.size = 4
    info.pax_headers = pax
    change(info)
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        tar.addfile(info, BytesIO(b"abcd"))
    return out.getvalue()


def setter(**values: object) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        for name, value in values.items():
            setattr(info, name, value)

    return change


def test_what_the_hostile_tars_are_made_of_is_fine_without_the_harm():
    assert [member.path for member, _ in read(foreign())] == ["file"]


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../up", "a/../../up", "a/./b", "./a", "a//b", "..", ".", "a/", "x" * 256, "a/" * 300 + "a"],
)
def test_a_path_that_is_not_plain_is_refused(path: str):
    assert "path" in refused(foreign(setter(name="x" * 120), path=path))


@pytest.mark.parametrize(
    "kind",
    [bytes([each]) for each in b"1346789VMZgKLXSDN"],
)
def test_what_is_no_file_folder_or_link_is_refused(kind: bytes):
    assert "neither" in refused(foreign(setter(type=kind, size=0, linkname="")))


def test_other_formats_are_refused():
    assert "POSIX" in refused(foreign(kind=tarfile.GNU_FORMAT))


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777])
def test_set_user_id_and_its_like_are_refused(mode: int):
    assert "permission bits" in refused(foreign(setter(mode=mode)))


@pytest.mark.parametrize(
    "key", ["GNU.sparse.map", "SCHILY.xattr.security.capability", "comment", "uname", "LIBARCHIVE.symlinktype"]
)
def test_records_that_ours_never_hold_are_refused(key: str):
    assert "holds" in refused(foreign(**{key: "1"}))


@pytest.mark.parametrize("value", ["-1", "x", "1e9", "99999999999999999999", "", "4.5", str(1 << 62)])
def test_a_size_that_is_no_number_is_refused(value: str):
    assert "number" in refused(foreign(size=value)) or "size" in refused(foreign(size=value))


@pytest.mark.parametrize("value", ["nan", "inf", "1.2.3", "1." + "9" * 10, "--1", "9" * 30])
def test_a_time_that_is_no_number_is_refused(value: str):
    assert "malformed" in refused(foreign(mtime=value))


@pytest.mark.parametrize("value", [str(1 << 34), str(-(1 << 34)), "9" * 19])
def test_a_time_that_no_clock_shows_is_refused(value: str):
    assert "no clock shows" in refused(foreign(mtime=value))


def test_a_link_without_target_or_a_file_with_one_is_refused():
    assert "target" in refused(foreign(setter(type=tarfile.SYMTYPE, size=0, linkname="")))
    assert "target" in refused(foreign(setter(linkname="/etc")))


def test_a_folder_with_content_is_refused():
    block = bytearray(header(Member(path="f", kind="folder")))
    block[124:136] = b"00000000010\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert "size" in refused(bytes(block) + bytes(2048))


def test_a_header_larger_than_any_of_ours_is_refused_before_it_is_read():
    bomb = header(Member(path="x" * 30_000, kind="file"))
    sink = Collected()
    with pytest.raises(FormatError, match="larger than any of ours"):
        Reader(sink).feed(bomb[:512])
    assert sink.members == []


@pytest.mark.parametrize(
    "records", [b"12 path=ab\n", b"11 path=ab\n9", b"path=ab\n", b" path=a\n", b"7 path\n", b"-8 path=a\n"]
)
def test_malformed_records_are_refused(records: bytes):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    block = info.tobuf(tarfile.USTAR_FORMAT)
    tar = block + records + padding(len(records)) + header(Member(path="f", kind="file"))
    assert "malformed" in refused(tar + trailer(len(tar)))


def test_a_record_that_comes_twice_and_a_second_header_are_refused():
    records = b"10 path=a\n" * 2
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    block = info.tobuf(tarfile.USTAR_FORMAT) + records + padding(len(records))
    assert "holds" in refused(block)
    once = header(Member(path="é", kind="file"))[:1024]
    assert "one too many" in refused(once + once)


def test_bytes_where_none_belong_are_refused():
    member = Member(path="f", kind="file", size_bytes=3)
    good = written((member, b"abc"))
    padded = bytearray(good)
    padded[512 + 100] = 1
    assert "between two members" in refused(bytes(padded))
    assert "after its end" in refused(good + good)
    assert "malformed" in refused(good + bytes(64 << 10))
    records = bytearray(written((Member(path="é", kind="file"), b"")))
    records[1023] = 1
    assert "behind a header" in refused(bytes(records))


def test_a_tar_that_is_cut_anywhere_is_refused():
    member = Member(path="é", kind="file", size_bytes=700)
    tar = written((member, b"a" * 700))
    end = len(tar) - tar.count(b"", len(tar.rstrip(b"\0"))) + 1
    last = 512 * 3 + 1024 + 1024  # three blocks of header, two of content, two of end
    assert end < last
    for length in range(last):
        with pytest.raises(FormatError):
            read(tar[:length])
    assert read(tar[:last])


def test_a_flipped_bit_in_a_header_is_refused_or_no_change_at_all():
    member = Member(path="a/b", kind="file", mode=0o640, mtime_ns=5_000_000_000, size_bytes=2)
    good = written((member, b"ab"))
    told = 0
    for at in range(512 * 8):
        flipped = bytearray(good)
        flipped[at // 8] ^= 1 << at % 8
        try:
            found = read(bytes(flipped))
        except FormatError:
            told += 1
        else:
            assert found == [(member, b"ab")]
    assert told > 512 * 8 * 0.9


@relaxed
@given(st.binary(max_size=4000))
def test_noise_is_refused(noise: bytes):
    with pytest.raises(FormatError):
        read(noise)


def entered(*members: tuple[str, str]) -> None:
    order = Order()
    for path, kind in members:
        order.enter(Member(path=path, kind=kind))  # type: ignore[arg-type]


def test_members_in_order_are_fine():
    entered(("a", "folder"), ("a/b", "folder"), ("a/b/c", "file"), ("a/b!", "file"), ("a/c", "link"), ("b", "folder"))


@pytest.mark.parametrize(
    "members",
    [
        [("a/b", "file")],
        [("a", "file"), ("a/b", "file")],
        [("a", "link"), ("a/b", "file")],
        [("a", "folder"), ("a", "folder")],
        [("a", "folder"), ("a/x", "file"), ("a/x", "file")],
        [("a", "folder"), ("a/x", "link"), ("a/x", "file")],
        [("a", "folder"), ("b", "folder"), ("a/x", "file")],
        [("b", "folder"), ("a", "folder")],
        [("a", "folder"), ("a/c", "folder"), ("a/c/d", "file"), ("a/b", "file")],
    ],
)
def test_members_out_of_order_twice_or_inside_what_is_no_folder_are_refused(members: list[tuple[str, str]]):
    with pytest.raises(FormatError):
        entered(*members)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("media/a", "/etc/passwd"),
        ("media/a", ".."),
        ("media/a", "../other"),
        ("media/b/a", "../../x"),
        ("media/a", "b/../../x"),
        ("media/a", "b/.."),
        ("media/b/a", "./../../x"),
        ("media/b/a", "..//..//x"),
    ],
)
def test_links_that_may_lead_out_are_known(path: str, target: str):
    assert leads_out(path, target)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("media/a", "b"),
        ("media/a", "b/c"),
        ("media/b/a", "../c"),
        ("media/b/c/a", "../../d"),
        ("media/a", "./b"),
        ("media/a", "..b"),
    ],
)
def test_links_that_stay_are_known(path: str, target: str):
    assert not leads_out(path, target)


def test_names_are_shown_so_that_they_can_do_nothing():
    assert shown("plain é") == "plain é"
    assert shown("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
    assert shown("\udcff") == "\\xff"
    assert "\u202e" not in shown("\u202eabc")


@relaxed
@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_coalescing_changes_no_byte(pieces: list[bytes], size_bytes: int):
    found = list(coalesced(iter(pieces), size_bytes=size_bytes))
    assert b"".join(found) == b"".join(pieces)
    assert all(found)
    assert len(found) <= 2 * len(b"".join(pieces)) // size_bytes + 1
