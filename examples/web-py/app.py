"""A page: a note in Markdown, given in the query, with its code in colours. An ordinary Flask app."""

import itertools

import markdown
import yaml
from flask import Flask, request
from itsdangerous import URLSafeSerializer
from jinja2 import Environment
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

app = Flask(__name__)
CONFIG = yaml.safe_load("title: Notes\nfooter: [made, in, one, sandbox]\n")
PAGE = Environment(autoescape=True).from_string(
    "<title>{{ title }}</title>{{ body }}{{ code }}<footer>{{ footer|join(' ') }}</footer>"
    "<a href='/?note={{ link }}'>link</a>\n"
)
# Both are dear to make, and are made at deploy.
LEXER = PythonLexer()
MARKDOWN = markdown.Markdown()
FORMAT = HtmlFormatter(nowrap=True)
SEAL = URLSafeSerializer("only an example")
COUNT = itertools.count(1)


@app.get("/")
def page():
    note = request.args.get("note", "*nothing*")
    return PAGE.render(
        title=f"{CONFIG['title']} {next(COUNT)}",
        body=Markup(MARKDOWN.convert(note)),
        code=Markup(highlight("print('hello')", LEXER, FORMAT)),
        footer=CONFIG["footer"],
        link=SEAL.dumps(note),
    )
