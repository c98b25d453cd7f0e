"""What a deployment may write as the path of a folder to run in place, as far as its text says."""

from __future__ import annotations

import pytest

from serverfull.domain.hot_paths import AllowedRoot, expanded, located
from serverfull.errors import InvalidParameterValue

ROOTS = [
    AllowedRoot(("srv", "code"), ("srv", "code")),
    AllowedRoot(("home", "me"), ("data", "me")),
    AllowedRoot(("tmp",), ("tmp",)),
]
VARIABLES = {
    "PROJECT": "/srv/code/shop",
    "NAME": "shop",
    "UP": "..",
    "ELSEWHERE": "/etc",
    "SECRET": "hunter2",
    "NESTED": "$PROJECT",
    "EMPTY": "",
}


@pytest.mark.parametrize(
    ("key", "real"),
    [
        ("/srv/code", "/srv/code"),
        ("/srv/code/shop", "/srv/code/shop"),
        ("/srv/code/shop/", "/srv/code/shop"),
        ("/srv/code/a folder/ünï", "/srv/code/a folder/ünï"),
        ("/srv/code/..shop/.hidden", "/srv/code/..shop/.hidden"),
        ("/home/me/shop", "/data/me/shop"),
        ("/data/me/shop", "/data/me/shop"),
        ("$PROJECT", "/srv/code/shop"),
        ("${PROJECT}/fn", "/srv/code/shop/fn"),
        ("/srv/code/${NAME}-fn", "/srv/code/shop-fn"),
        ("/srv/code$EMPTY/shop", "/srv/code/shop"),
    ],
)
def test_a_folder_below_an_allowed_one_is_found_by_its_names(key: str, real: str) -> None:
    assert str(located(expanded(key, VARIABLES), key, ROOTS)) == real


@pytest.mark.parametrize(
    ("key", "why"),
    [
        pytest.param(key, why, id=ascii(key)[:40])
        for key, why in {
            "": "not absolute",
            " ": "not absolute",
            ".": "not absolute",
            "code/shop": "not absolute",
            "~/shop": "not absolute",
            "file:///srv/code/shop": "not absolute",
            "C:\\code": "not absolute",
            "/": "below none",
            "/etc": "below none",
            "/srv": "below none",
            "/srv/code-evil": "below none",
            "/srv/codeevil/x": "below none",
            "/srv/cod": "below none",
            "/tmp-evil": "below none",
            "/SRV/CODE/shop": "below none",
            "/Tmp/x": "below none",
            "/home/me-too/x": "below none",
            "/proc/self/root/srv/code/shop": "below none",
            "/proc/self/cwd": "below none",
            "/proc/self/fd/3": "below none",
            "/dev/fd/3": "below none",
            "/srv/code/../code/shop": "'..'",
            "/srv/code/..": "'..'",
            "/srv/code/./shop": "'.'",
            "//srv/code/shop": "empty names",
            "/srv//code/shop": "empty names",
            "/srv/code/shop//": "empty names",
            "/srv/code/shop\0": "cannot be printed",
            "/srv/code/shop\0/../../etc": "cannot be printed",
            "/srv/code/shop\n": "cannot be printed",
            "/srv/code/\x1b[2J": "cannot be printed",
            "/srv/code/\u202eshop": "cannot be printed",
            "/srv/code/\ud800": "cannot be printed",
            "/srv/code/shop ": "space",
            "/srv/code/ shop": "space",
            "/srv/code/shop.": "dot",
            "/srv/code/...": "dot",
            "/srv/code/" + "x" * 256: "255 bytes",
            "/srv/code" + "/x" * 2100: "4095 bytes",
            "$ELSEWHERE": "below none",
            "/srv/code/$UP/x": "'..'",
            "$NESTED": "not absolute",
            "/srv/code/$NO_SUCH_VARIABLE": "no variable NO_SUCH_VARIABLE",
            "/srv/code/$": "begins no variable",
            "/srv/code/${NAME": "begins no variable",
            "/srv/code/$(id)": "begins no variable",
            "/srv/code/$1": "begins no variable",
        }.items()
    ],
)
def test_a_path_that_could_mean_another_place_is_refused_by_name(key: str, why: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        located(expanded(key, VARIABLES), key, ROOTS)
    assert why in refusal.value.message
    assert repr(key)[:200] in refusal.value.message
    assert "hot_reload.allowed_paths" in refusal.value.message


def test_a_refusal_does_not_tell_what_is_in_the_variables_of_the_host() -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        located(expanded("/nowhere/$SECRET", VARIABLES), "/nowhere/$SECRET", ROOTS)
    assert "hunter2" not in refusal.value.message
    assert "$SECRET" in refusal.value.message
