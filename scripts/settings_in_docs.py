"""Writes the settings, as the code states them, into docs/your-log.md."""

from pathlib import Path

from watchnext.config import settings_lines

BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def with_settings(text: str) -> str:
    """Gives the page with its settings part replaced."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + "```toml\n" + "\n".join(settings_lines()).strip() + "\n```\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    page = Path(__file__).parent.parent / "docs" / "your-log.md"
    page.write_text(with_settings(page.read_text()))
