"""A page as a test reads it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, text by tag, and whether every tag is closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    def assert_fetches_nothing(self) -> None:
        """No address but of a picture inside, no script, and a policy that forbids both."""
        for tag, attributes in self.tags:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form", "a", "use", "image")
            assert not {"href", "xlink:href", "srcset", "data", "action"} & set(attributes)
            assert not any(name.startswith("on") for name in attributes)
            if "src" in attributes:
                assert tag == "img"
                assert (attributes["src"] or "").startswith("data:image/jpeg;base64,")
            assert "url(" not in "".join(value or "" for value in attributes.values())
        style = "".join(self.texts)
        assert "url(" not in style
        assert "@import" not in style
        policies = [attributes["content"] for _, attributes in self.tags if "http-equiv" in attributes]
        assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
