"""The page: a table of runs to filter and choose from, and tabs about those that are chosen. It looks at the files again every few seconds."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any

import dash_ag_grid as grid
import flask
from dash import Dash, Input, Output, State, dcc, html, no_update

from runners.compose import COMMAND
from runners.dashboard import charts
from runners.dashboard import runs as found
from runners.dashboard.runs import Runs
from runners.report.archives import archive_maps, how_to_draw
from runners.report.curves import differing_settings, groups, metrics, shown
from runners.report.tables import commands

FIRST = ("episode/return", "evaluation/return", "episode/success", "episode/coverage", "bonus/weighted")  # shown where nothing is chosen
HOSTS = ("127.0.0.1", "localhost", "[::1]")
TABS = {"curves": "Curves", "compare": "Compare", "maps": "Maps", "media": "Pictures and videos", "commands": "Commands and settings"}
STYLE = """
body { font-family: system-ui, sans-serif; margin: 0; color: #222; }
.page { display: flex; gap: 1rem; padding: 0 1rem 1rem; }
.left { width: 46%; min-width: 420px; }
.right { flex: 1; min-width: 0; }
h1 { font-size: 1.15rem; padding: .7rem 1rem 0; margin: 0 0 .6rem; }
input[type=text] { width: 100%; box-sizing: border-box; padding: .4rem; margin-bottom: .5rem; }
.bar { display: flex; gap: .8rem; align-items: center; flex-wrap: wrap; }
.bar > div { min-width: 240px; }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto; }
table { border-collapse: collapse; font-size: .86rem; }
td, th { border: 1px solid #ddd; padding: .25rem .5rem; text-align: left; }
.media { display: flex; flex-wrap: wrap; gap: 1rem; }
.media img, .media video { max-width: 420px; }
.note { color: #666; font-size: .86rem; }
"""


def make(folder: Path, seconds: float = 3.0) -> Dash:
    """The application over the runs in ``folder``."""
    runs = Runs(folder)
    app = Dash("farlands", title="Farlands", update_title="", serve_locally=True, suppress_callback_exceptions=True)
    app.index_string = app.index_string.replace("</head>", f"<style>{STYLE}</style></head>")
    app.layout = layout(folder, seconds)
    guard(app.server, runs)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    shared = [Output("runs", "rowTransaction"), Output("shown", "data"), Output("count", "children")]

    @app.callback(*shared, Input("tick", "n_intervals"), Input("filter", "value"), State("shown", "data"))
    def table(_, words, before):
        """Only what has changed goes to the page: what is chosen there stays chosen."""
        every = runs.all()
        rows = {row["run"]: row for row in (found.row(runs, run) for run in every if found.matches(run, runs.place(run), words or ""))}
        change = difference(before or {}, rows)
        return (change or no_update), (rows if change else no_update), f"{len(rows)} of {len(every)} runs in {folder}"

    @app.callback(Output("metrics", "options"), Output("by", "options"), Input("runs", "selectedRows"), Input("tick", "n_intervals"))
    def choices(selected, _):
        chosen = runs.chosen(names(selected))
        return metrics(groups(chosen)), found.comparable(chosen)

    inputs = [Input(*pair) for pair in (("runs", "selectedRows"), ("tab", "value"), ("metrics", "value"), ("by", "value"), ("options", "value"))]

    @app.callback(Output("content", "children"), Output("seen", "data"), *inputs, Input("tick", "n_intervals"), State("seen", "data"))
    def content(selected, tab, chosen_metrics, by, options, _, seen):
        chosen = runs.chosen(names(selected))
        now = [tab, chosen_metrics, by, options, [[runs.place(run), str(found.stamp_of(run.path)), len(found.media(run))] for run in chosen]]
        if now == seen:
            return no_update, no_update
        if not chosen:
            return html.P("Choose runs in the table: a click on its box, or on the box in the heading for all that the filter leaves.", className="note"), now
        return PAGES[tab](runs, chosen, chosen_metrics, by, options or []), now

    return app


def difference(before: dict[str, dict], now: dict[str, dict]) -> dict[str, Any] | None:
    """What to do to the rows of a table, by the names of the runs; None where nothing has changed."""
    made = {
        "add": [row for name, row in now.items() if name not in before],
        "update": [row for name, row in now.items() if name in before and before[name] != row],
        "remove": [row for name, row in before.items() if name not in now],
    }
    return {key: rows for key, rows in made.items() if rows} | {"async": False} if any(made.values()) else None


def names(selected: list[dict[str, Any]] | None) -> list[str]:
    return [row["run"] for row in selected or []]


def layout(folder: Path, seconds: float) -> html.Div:
    columns = [
        {"field": "run", "flex": 3, "minWidth": 170, "tooltipField": "run"},
        *({"field": name, "flex": 1.2, "minWidth": 72, "tooltipField": name} for name in ("world", "agent", "exploration", "state")),
        *({"field": name, "flex": 1, "minWidth": 70, "type": "rightAligned"} for name in ("members", "steps", "return", "steps/s")),
    ]
    for column in columns:
        if column["field"] in ("return", "steps/s", "steps"):
            form = ",.3~f" if column["field"] == "return" else ",.0f"
            column["valueFormatter"] = {"function": f"params.value == null ? '' : d3.format('{form}')(params.value)"}
    table = grid.AgGrid(
        id="runs",
        columnDefs=columns,
        rowData=[],
        getRowId="params.data.run",
        defaultColDef={"sortable": True, "resizable": True, "suppressHeaderMenuButton": True},
        dashGridOptions={"rowSelection": {"mode": "multiRow", "selectAll": "filtered", "enableClickSelection": True}, "animateRows": False},
        style={"height": "78vh", "--ag-font-size": "12px", "--ag-spacing": "5px"},
    )
    hint = "filter: words, or setting=value, as scale=0.5"
    words = dcc.Input("", id="filter", type="text", placeholder=hint, debounce=False)
    left = html.Div([words, table, html.P(id="count", className="note")], className="left")
    bar = html.Div(
        [
            html.Div(dcc.Dropdown([], [], id="metrics", multi=True, placeholder="metrics")),
            html.Div(dcc.Dropdown([], None, id="by", placeholder="a line per value of ...")),
            dcc.Checklist({"seeds": "single seeds", "log": "logarithmic"}, [], id="options", inline=True),
        ],
        className="bar",
    )
    tabs = dcc.Tabs(id="tab", value="curves", children=[dcc.Tab(label=label, value=name) for name, label in TABS.items()])
    right = html.Div([tabs, bar, html.Div(id="content")], className="right")
    hidden = [dcc.Interval(id="tick", interval=int(1000 * seconds)), dcc.Store(id="seen"), dcc.Store(id="shown")]
    return html.Div([html.H1(f"Farlands: {folder}"), html.Div([left, right], className="page"), *hidden])


def guard(server: flask.Flask, runs: Runs) -> None:
    """Answer this machine only, whatever name it is called by, and give out pictures of runs and nothing else."""

    @server.before_request
    def local():
        if flask.request.host.rpartition(":")[0] not in HOSTS and flask.request.host not in HOSTS:
            flask.abort(403)

    @server.get("/media/<path:name>")
    def media(name):
        file = runs.folder / name
        if not found.inside(name) or file.suffix.lower() not in found.MEDIA or not file.is_file():
            flask.abort(404)
        return flask.send_file(file.absolute(), conditional=True)


# --- the tabs -------------------------------------------------------------------------------------------------------------


def curves_tab(runs, chosen, chosen_metrics, by, options):
    every = groups(chosen)
    known = metrics(every)
    wanted = [m for m in chosen_metrics or [] if m in known] or [m for m in FIRST if m in known][:4] or known[:2]
    if not wanted:
        return html.P("No metrics yet.", className="note")
    figure = charts.lines(charts.arranged(every, by), wanted, "seeds" in options, "log" in options)
    return dcc.Graph(figure=figure, id="curves", config={"displaylogo": False})


def compare_tab(runs, chosen, chosen_metrics, by, options):
    every = groups(chosen)
    known = metrics(every)
    wanted = [m for m in chosen_metrics or [] if m in known] or [m for m in FIRST if m in known]
    parts = []
    for metric in wanted:
        rows = charts.ends(charts.arranged(every, by), metric)
        heads = list(dict.fromkeys(key for row in rows for key in row))
        parts += [html.H3(f"{metric}, last values"), text_table(heads, [[number(row.get(head, "")) for head in heads] for row in rows])]
    differ = differing_settings(chosen)
    body = [[key, *map(shown, values)] for key, values in differ.items()]
    nothing = html.P("None: these runs have the same settings.", className="note")
    parts += [html.H3("Settings that differ"), text_table(["setting", *map(runs.place, chosen)], body) if body else nothing]
    return html.Div(parts, id="compared")


def maps_tab(runs, chosen, chosen_metrics, by, options):
    parts = []
    for run in chosen:
        place = runs.place(run)
        if (figure := charts.visits(run, place)) is not None:
            parts.append(dcc.Graph(figure=figure, config={"displaylogo": False}))
        for png, caption in archive_maps(run):
            parts.append(html.Figure([picture(f"/media/{place}/pictures/{png.name}", "image"), html.Figcaption(caption)]))
        for invitation, command in how_to_draw(run):
            parts.append(html.Div([html.P(f"{place}: {invitation}", className="note"), html.Pre(command)]))
    nothing = "None of these runs has a map: their worlds are no grids, and they keep no archive."
    return html.Div(parts or html.P(nothing, className="note"), className="media", id="maps")


def media_tab(runs, chosen, chosen_metrics, by, options):
    shown_media = []
    for run in chosen:
        for path, kind in found.media(run):
            place = f"/media/{runs.place(run)}/{path}"
            shown_media.append(html.Figure([picture(place, kind), html.Figcaption(f"{runs.place(run)}/{path}", className="note")]))
    advice = f"None yet: '{COMMAND} play RUN' makes a video, '{COMMAND} report RUN' pictures."
    return html.Div(shown_media or html.P(advice, className="note"), className="media")


def picture(place: str, kind: str) -> Any:
    if kind == "video":
        return html.Video(src=place, controls=True, loop=True)
    return html.Img(src=place) if kind == "image" else html.A("open", href=place, target="_blank")


def commands_tab(runs, chosen, chosen_metrics, by, options):
    parts = []
    for run in chosen:
        typed = commands(run) or [f"{COMMAND} resume {shlex.quote(str(run.path))}"]
        settings = "\n".join(f"{key}={value}" for key, value in found.settings(run).items())
        parts += [html.H3(runs.place(run)), html.P(run.state, className="note"), html.Pre("\n".join(typed))]
        parts += [html.P(problem, className="note") for problem in run.problems]
        parts += [html.Details([html.Summary("all settings"), html.Pre(settings)])]
    return html.Div(parts, id="commands")


PAGES = {"curves": curves_tab, "compare": compare_tab, "maps": maps_tab, "media": media_tab, "commands": commands_tab}


def text_table(heads: list[str], body: list[list[str]]) -> html.Table:
    return html.Table([html.Thead(html.Tr([html.Th(head) for head in heads])), html.Tbody([html.Tr([html.Td(cell) for cell in row]) for row in body])])


def number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
