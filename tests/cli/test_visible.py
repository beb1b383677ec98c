from calotype.cli.visible import visible


def test_control_characters_are_escaped_and_nothing_else_is():
    assert visible("\x1b[31mred\x07\n\x85\u2028\0") == r"\x1b[31mred\x07\n\x85\u2028\x00"
    assert visible("a\u202eb\u2066c") == r"a\u202eb\u2066c"
    text = "狐狸 – a “fox” 🏴‍☠️ \\x1b"
    assert visible(text) == text


def test_info_shows_what_an_image_says_on_one_line_each(command):
    command("sample", "a\x1b[2J fox\nseed: 7", "-o", "a.png", "--size", "8")
    code, out, _ = command("info", "a.png")
    assert code == 0 and "\x1b" not in out
    assert r"caption: a\x1b[2J fox\nseed: 7" in out.splitlines()


def test_a_foreign_card_cannot_command_the_terminal(command, model):
    (model / "README.md").write_text("# Card\n\x1b]0;title\x07text")
    try:
        out = command("info", str(model))[1]
    finally:
        (model / "README.md").unlink()
    assert "# Card\n" in out and "\x1b" not in out


def test_errors_are_printable(command):
    code, _, err = command("info", "a\x1b[31m")
    assert code == 2 and "\x1b" not in err
