"""The encodings of VMware's texts (.vmx, .vmsd, the descriptors of .vmdk): that of its host."""

from __future__ import annotations

# What VMware writes: the name that Python has for it. No others are looked up: some that Python
# knows are no encodings of text.
ENCODINGS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **{f"windows-{page}": f"cp{page}" for page in (874, *range(1250, 1259))},
    **{f"iso-8859-{part}": f"iso8859-{part}" for part in range(1, 16) if part != 12},
    "us-ascii": "cp1252",
    "ibm437": "cp437",
    "ibm850": "cp850",
    "koi8-r": "koi8-r",
    "gbk": "gbk",
    "gb2312": "gbk",
    "gb18030": "gb18030",
    "big5": "big5",
    "windows-936": "gbk",
    "shift_jis": "cp932",
    "windows-932": "cp932",
    "windows-31j": "cp932",
    "euc-jp": "euc_jp",
    "euc-kr": "cp949",
    "windows-949": "cp949",
    "windows-950": "cp950",
}
